"""What a command is about: multinomial naive Bayes over its words and word pairs (McCallum & Nigam 1998).

Counting is all its training, so it costs nothing beside the language model; and with one term unknown, as names often
are, the others still decide.

Shapes: I intents, W terms.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UserError

SMOOTHING = 0.1  # added to every count
MIN_COUNT = 2  # terms that are rarer say little and would be most of the table


@dataclass(frozen=True)
class Intent:
    """`probability` of the intent under the model, 0…1."""

    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class IntentClassifier:
    """`log_prior_I` and `log_prob_IW`, in nats, of intents `names` and of `terms`."""

    names: tuple[str, ...]
    terms: tuple[str, ...]
    log_prior_I: Tensor
    log_prob_IW: Tensor

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.terms))
        if tuple(self.log_prob_IW.shape) != shape or tuple(self.log_prior_I.shape) != shape[:1]:
            raise UserError(
                f"intent classifier: its table must be {shape}, not {tuple(self.log_prob_IW.shape)}"
            )
        object.__setattr__(self, "_column", {term: index for index, term in enumerate(self.terms)})

    def classify(self, text: str) -> Intent | None:
        """The most probable intent; None for a text without any known term, and for a classifier without intents."""
        column: Mapping[str, int] = self._column  # type: ignore[attr-defined]
        known = [column[term] for term in terms_of(text) if term in column]
        if not known or not self.names:
            return None
        posterior_I = (self.log_prior_I + self.log_prob_IW[:, known].sum(-1)).softmax(-1)
        best = int(posterior_I.argmax())
        return Intent(self.names[best], float(posterior_I[best]))


def terms_of(text: str) -> list[str]:
    """Words, and neighbours joined by "_"; the first word also as a neighbour of nothing."""
    words = text.split()
    return [*words, *(f"{left}_{right}" for left, right in zip(["", *words], words, strict=False))]


def train_intents(examples: Iterable[tuple[str, str]]) -> IntentClassifier:
    """From (text, intent); no examples give a classifier that knows no intent."""
    counts: dict[str, Counter[str]] = {}
    sentences: Counter[str] = Counter()
    for text, intent in examples:
        counts.setdefault(intent, Counter()).update(terms_of(text))
        sentences[intent] += 1
    totals = sum(counts.values(), Counter())
    names = tuple(sorted(counts))
    terms = tuple(sorted(term for term, count in totals.items() if count >= MIN_COUNT))
    count_IW = torch.tensor([[counts[name][term] for term in terms] for name in names])
    count_IW = count_IW.reshape(len(names), len(terms)) + SMOOTHING
    log_prior_I = torch.tensor([math.log(sentences[name] / sentences.total()) for name in names])
    return IntentClassifier(names, terms, log_prior_I, (count_IW / count_IW.sum(-1, keepdim=True)).log())


def accuracy(classifier: IntentClassifier, examples: Iterable[tuple[str, str]]) -> float:
    """Percent of (text, intent) whose intent is found; NaN without examples."""
    right = [
        found is not None and found.name == intent
        for text, intent in examples
        for found in [classifier.classify(text)]
    ]
    return 100.0 * sum(right) / len(right) if right else math.nan
