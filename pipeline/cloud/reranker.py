"""What the service does with a lattice: n best paths, ranked with the language model, and the intent of the best.

Cost: 100 paths of a command of seven words take about 40 ms on one core.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.cloud.wire import Hypothesis, Ranked, known_words
from pipeline.decoding.lattice import Lattice
from pipeline.decoding.rescoring import Candidate, Weights, candidates, internal_log_probs, rank
from pipeline.errors import UserError
from pipeline.language.neural import log_probs
from pipeline.language.storage import Language
from pipeline.runtime.bundle import Packed

NUM_PATHS = 100
DEFAULT_WEIGHTS = Weights(
    language_model=0.5, internal=0.6, per_word=-2.0, grammar=0.5
)  # dev set of the default run
NUM_SENT = 5  # hypotheses of an answer


@dataclass(frozen=True, eq=False)
class Reranker:
    """A language model, the recogniser whose lattices it ranks, and the weights that were chosen on its dev set."""

    language: Language
    packed: Packed
    weights: Weights
    num_paths: int = NUM_PATHS

    def __post_init__(self) -> None:
        if self.language.tokenizer_hash != self.packed.tokenizer.hash:
            raise UserError(
                "the language model has another tokenizer than the recogniser; take both from one run"
            )
        _ = self.packed.model  # built at the first use; no request should wait for it

    @property
    def words(self) -> list[str]:
        """Those that a lattice may name by number."""
        return known_words([piece for piece, _ in self.packed.tokenizer.pieces])

    def candidates(self, lattice: Lattice) -> list[Candidate]:
        """The lattice's best paths with their scores."""
        return candidates(
            lattice,
            self.num_paths,
            self.packed.tokenizer.encode,
            lambda sentences: log_probs(self.language.model, sentences),
            lambda sentences: internal_log_probs(self.packed.model, sentences),
            self._grammar,
        )

    def _grammar(self, sentences: Sequence[Sequence[int]]) -> list[float]:
        lexicon = self.packed.lexicon
        return lexicon.earned(sentences) if lexicon else [0.0] * len(sentences)

    def rank(self, lattice: Lattice) -> Ranked:
        """The best hypotheses and the intent."""
        ranked = rank(self.candidates(lattice), self.weights)
        scores = [each.score(self.weights) for each in ranked]
        shares = _softmax(scores)
        n_best = tuple(map(Hypothesis, (each.text for each in ranked), scores, shares))
        intent = self.language.intents.classify(n_best[0].text)
        return Ranked(
            n_best[:NUM_SENT], intent.name if intent else None, intent.probability if intent else 0.0
        )


def read_weights(path: Path) -> Weights:
    """Weights from a JSON object. Raises UserError for a file that is none, other keys, or no finite numbers."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights = Weights(**{key: float(value) for key, value in content.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: must hold language_model, internal, per_word and grammar as JSON numbers ({error})"
        ) from error
    if not all(math.isfinite(value) for value in asdict(weights).values()):
        raise UserError(f"{path}: its weights must be finite numbers")
    return weights


def _softmax(scores: Sequence[float]) -> list[float]:
    powers = [math.exp(score - scores[0]) for score in scores]  # the first is the best
    total = sum(powers)
    return [power / total for power in powers]
