"""Second pass over a word lattice: its best paths, ranked anew with a large language model.

    score = acoustic + bonus + language_model * log P_LM - internal * log P_ILM - grammar * G + per_word * words

P_ILM is what the transducer itself knows of language: predictor and joiner with the encoder's output zeroed, blank
left out (Meng et al. 2021, "Internal language model estimation", arXiv 2011.01991). It sees two tokens, as the
predictor does, and knows no end. G is what the device's lexicon and grammar have added to the bonus. Subtracting both
keeps language from being counted twice. The bias's bonus stays: the cloud does not know the names that it stands for.

Only the n best paths of the first pass are scored; with a lattice of one path per word sequence that is an n-best list
whose length the cloud chooses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from pipeline.decoding.lattice import Lattice, n_best
from pipeline.models.transducer import Transducer

Tokens = Sequence[int]
Scorer = Callable[[Sequence[Tokens]], list[float]]  # log probabilities of token sequences, nats
BLANK_ID = 0


@dataclass(frozen=True)
class Weights:
    """What the second pass adds to the first; all zero leaves the order of the lattice."""

    language_model: float = 0.0
    internal: float = 0.0
    per_word: float = 0.0
    grammar: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """A word sequence of the lattice. `first_pass`: acoustic + bonus; `grammar`: of that, what lexicon and grammar
    gave; the others are log probabilities (nats).
    """

    words: tuple[str, ...]
    first_pass: float
    language_model: float
    internal: float
    grammar: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def score(self, weights: Weights) -> float:
        return (
            self.first_pass
            + weights.language_model * self.language_model
            - weights.internal * self.internal
            - weights.grammar * self.grammar
            + weights.per_word * len(self.words)
        )


def candidates(
    lattice: Lattice,
    num_paths: int,
    encode: Callable[[str], Tokens],
    language_model: Scorer,
    internal: Scorer,
    grammar: Scorer,
) -> list[Candidate]:
    """The word sequences of the `num_paths` best paths, best first, with all scores; equal ones count once."""
    first_pass: dict[tuple[str, ...], float] = {}
    for path in n_best(lattice, num_paths):
        first_pass.setdefault(tuple(path.words), path.score)  # the first to come is the best
    tokens = [encode(" ".join(words)) for words in first_pass]
    scores = zip(first_pass.items(), language_model(tokens), internal(tokens), grammar(tokens), strict=True)
    return [Candidate(words, before, *others) for (words, before), *others in scores]


def rank(found: Sequence[Candidate], weights: Weights) -> list[Candidate]:
    """Best first; what scores alike stays in the order of the first pass."""
    return sorted(found, key=lambda candidate: -candidate.score(weights))


@torch.inference_mode()
def internal_log_probs(model: Transducer, sentences: Sequence[Tokens]) -> list[float]:
    """log P_ILM of each token sequence under the transducer's predictor and joiner alone."""
    if not sentences:
        return []
    tokens_BU = pad_sequence([torch.tensor(s, dtype=torch.long) for s in sentences], batch_first=True)
    silent_D = torch.zeros(model.encoder.output_width)
    logits_BUV = model.join(silent_D, model.predict(tokens_BU)[:, :-1])
    logits_BUV[..., BLANK_ID] = -torch.inf
    chosen_BU = logits_BUV.log_softmax(-1).gather(-1, tokens_BU[..., None])[..., 0]
    inside_BU = torch.arange(tokens_BU.shape[1]) < torch.tensor([len(s) for s in sentences])[:, None]
    return chosen_BU.where(inside_BU, 0.0).double().sum(-1).tolist()
