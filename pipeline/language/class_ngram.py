"""A trigram of word classes in small integers: the grammar that travels with a packed recogniser in some ten kilobytes.

    P(w | h) = P(class of w | h) P(w | its class)               (Brown et al. 1992)
    P(c | h) = max(n(h, c) - D, 0) / n(h) + D t(h) / n(h) P(c | h without its oldest class)

with n counts, t(h) how many classes follow h (absolute discounting, Ney, Essen & Kneser 1994). A history h is one class
or, where it was seen often enough, two. Counts are kept as levels, n = 2^(level / 2), so that what was fitted and what
was unpacked are the same model.

Shapes: W words, K classes, P histories of two classes, H = K + P histories (those of one class first), S successors.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.language.word_classes import word_classes

BOUNDARY, UNKNOWN = 0, 1  # classes: before the first word and behind the last; words that are not in the list
NUM_OWN = 2
DISCOUNT = 0.75
UNSEEN = 0.1  # what a class counts as that follows none
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class ClassNgram:
    """`words` in alphabetical order, with class and level; `pairs_P2`: the histories of two classes (older, newer),
    ordered by the newer; successors of history h: `successor_S[first_H[h] : first_H[h + 1]]`, increasing.

    Successors of (older, newer) are among those of (newer).
    """

    words: tuple[str, ...]
    class_W: Array
    level_W: Array
    pairs_P2: Array
    first_H: Array
    successor_S: Array
    level_S: Array
    num_classes: int

    @classmethod
    def fit(
        cls, sentences: Iterable[Sequence[str]], words: Iterable[str], num_classes: int, min_history: int
    ) -> "ClassNgram":
        """From sentences of words. Words that are not in `words` are unknown; one that was said once is counted as
        unknown a second time, for to the rest of the sentences it is. `min_history`: how often two classes must have
        been seen side by side to be a history.
        """
        names = tuple(sorted(words))
        said = _with_unknown(list(sentences), {word: NUM_OWN + n for n, word in enumerate(names)})
        pairs = Counter(pair for ids in said for pair in zip(ids, ids[1:], strict=False))
        num_ids, num_classes = NUM_OWN + len(names), min(num_classes, len(names)) + NUM_OWN
        class_I = word_classes(pairs, num_ids, num_classes, NUM_OWN)
        followed = _followers([[int(class_I[i]) for i in ids] for ids in said])
        frequent = (h for h, counts in followed.items() if len(h) == 2 and counts.total() >= min_history)
        kept = sorted(frequent, key=lambda h: h[::-1])
        rows = [sorted(followed[h].items()) for h in [*((c,) for c in range(num_classes)), *kept]]
        successors = np.array([pair for row in rows for pair in row], int).reshape(-1, 2)
        counts = Counter(i for ids in said for i in ids)
        return cls(
            names,
            class_I[NUM_OWN:],
            levels(np.array([counts[NUM_OWN + n] for n in range(len(names))])),
            np.array(kept, int).reshape(-1, 2),
            np.cumsum([0, *map(len, rows)]),
            successors[:, 0],
            levels(successors[:, 1]),
            num_classes,
        )

    @classmethod
    def silent(cls) -> "ClassNgram":
        """Knows no word."""
        none, first_H = np.zeros(0, int), np.zeros(NUM_OWN + 1, int)
        return cls((), none, none, none.reshape(0, 2), first_H, none, none, NUM_OWN)

    @cached_property
    def newest_H(self) -> Array:
        """The newer class of each history (its only one)."""
        return np.concatenate([np.arange(self.num_classes), self.pairs_P2[:, 1]])

    @cached_property
    def next_KK(self) -> Array:
        """The history after classes (older, newer)."""
        next_KK = np.tile(np.arange(self.num_classes), (self.num_classes, 1))
        next_KK[self.pairs_P2[:, 0], self.pairs_P2[:, 1]] = self.num_classes + np.arange(len(self.pairs_P2))
        return next_KK

    @cached_property
    def probability_HK(self) -> Array:
        """P(class | history), rows add up to 1."""
        count_HK = np.zeros((len(self.first_H) - 1, self.num_classes))
        histories_S = np.repeat(np.arange(len(count_HK)), np.diff(self.first_H))
        count_HK[histories_S, self.successor_S] = counts_of(self.level_S)
        unigram_K = count_HK[: self.num_classes].sum(0) + UNSEEN
        lower_KK = _discounted(count_HK[: self.num_classes], unigram_K / unigram_K.sum())
        return np.concatenate(
            [lower_KK, _discounted(count_HK[self.num_classes :], lower_KK[self.pairs_P2[:, 1]])]
        )

    @cached_property
    def emission_W(self) -> Array:
        """P(word | its class)."""
        count_W = counts_of(self.level_W)
        return count_W / np.bincount(self.class_W, count_W, self.num_classes)[self.class_W]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """A word, ends of sentences counted, unknown words as one word."""
        place = {word: n for n, word in enumerate(self.words)}
        total, count = 0.0, 0
        for sentence in sentences:
            history = BOUNDARY
            for n in [*(place.get(word, -1) for word in sentence), None]:
                known = n is not None and n >= 0
                after = BOUNDARY if n is None else int(self.class_W[n]) if known else UNKNOWN
                total += np.log(self.probability_HK[history, after] * (self.emission_W[n] if known else 1.0))
                history, count = int(self.next_KK[self.newest_H[history], after]), count + 1
        return float(np.exp(-total / max(1, count)))


def levels(count: Array) -> Array:
    """Counts, 1 or more, in steps of half an octave; 0 counts as 1."""
    return np.rint(2 * np.log2(np.maximum(count, 1))).astype(int)


def counts_of(level: Array) -> Array:
    return 2.0 ** (level / 2)


def _discounted(count_HK: Array, lower_HK: Array) -> Array:
    """Absolute discounting; a history that nothing followed is like the one below it."""
    total_H1 = count_HK.sum(1, keepdims=True)
    seen_H1 = (count_HK > 0).sum(1, keepdims=True)
    kept_HK = np.maximum(count_HK - DISCOUNT, 0) + DISCOUNT * seen_H1 * lower_HK
    return np.where(total_H1 > 0, kept_HK / np.maximum(total_H1, 1), lower_HK)


def _followers(told: Iterable[Sequence[int]]) -> defaultdict[tuple[int, ...], Counter]:
    """What follows each class and each two classes, how often."""
    followed: defaultdict[tuple[int, ...], Counter] = defaultdict(Counter)
    for classes in told:
        for n in range(1, len(classes)):
            followed[classes[n - 1],][classes[n]] += 1
            if n > 1:
                followed[classes[n - 2], classes[n - 1]][classes[n]] += 1
    return followed


def _with_unknown(sentences: Sequence[Sequence[str]], place: Mapping[str, int]) -> list[list[int]]:
    """Sentences as ids between two boundaries, and once more for each word in them that was said once."""
    said = [[BOUNDARY, *(place.get(word, UNKNOWN) for word in each), BOUNDARY] for each in sentences]
    counts = Counter(i for ids in said for i in ids)
    rare = [(ids, n) for ids in said for n, i in enumerate(ids) if i >= NUM_OWN and counts[i] == 1]
    return said + [[*ids[:n], UNKNOWN, *ids[n + 1 :]] for ids, n in rare]
