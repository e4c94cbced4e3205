"""Bias lists for a test set: the phrases of an utterance among distractors, and lists that have none of them.

Le et al. 2021 (arXiv 2104.02194): an utterance's own rare words and N distractors. Here an utterance's own phrases are
its names (contacts, rooms, songs); distractors are other utterances' names, then the rarest training words. None
shares a word with the reference, so that a list's size does not change which reference words count as biased.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from lhotse.cut import MonoCut

from pipeline.evaluation.wer import normalise

ANTI_SIZE = 100


@dataclass(frozen=True)
class BiasList:
    """`given` to the search; `own`: the utterance's phrases, whose words are the biased ones (also where not given)."""

    given: tuple[str, ...]
    own: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.own, *self.given)


def own_phrases(custom: Mapping) -> tuple[str, ...]:
    """Names and rare words of a cut's supervision, normalised; none where its corpus does not know them."""
    phrases = [*(custom.get("names") or []), *(custom.get("rare_words") or [])]
    return tuple(dict.fromkeys(filter(None, map(normalise, phrases))))


def distractor_pool(own: Iterable[Sequence[str]], texts: Iterable[str]) -> list[str]:
    """Phrases of all utterances, then words of the transcripts, the rarest first; each once."""
    names = sorted({phrase for phrases in own for phrase in phrases})
    counts = Counter(word for text in texts for word in normalise(text).split())
    return list(dict.fromkeys([*names, *sorted(counts, key=lambda word: (counts[word], word))]))


def pool_of(test: Sequence[MonoCut], train: Sequence[MonoCut]) -> list[str]:
    """The distractors of a test set: names of both sets, words of the training transcripts."""
    own = [own_phrases(cut.supervisions[0].custom or {}) for cut in [*test, *train]]
    return distractor_pool(own, [cut.supervisions[0].text or "" for cut in train])


def bias_list(
    reference: str, own: Sequence[str], size: int, pool: Sequence[str], rng: np.random.Generator
) -> BiasList:
    """`own` and distractors, `size` in all, fewer where the pool has no more; size 0: nothing is given."""
    return BiasList((*own, *_distractors(reference, size - len(own), pool, rng))[:size], tuple(own))


def anti_list(reference: str, own: Sequence[str], pool: Sequence[str], rng: np.random.Generator) -> BiasList:
    """Phrases of others only: what a list does to a speaker who says none of it."""
    return BiasList(_distractors(reference, ANTI_SIZE, pool, rng), tuple(own))


def _distractors(
    reference: str, count: int, pool: Sequence[str], rng: np.random.Generator
) -> tuple[str, ...]:
    """The first of the pool come first to hand: short lists hold names, long ones also words."""
    if count <= 0:
        return ()
    said = set(normalise(reference).split())
    fitting = [phrase for phrase in pool[: 2 * count + 100] if not said & set(phrase.split())]
    chosen = rng.permutation(len(fitting))[:count]
    return tuple(fitting[index] for index in chosen)
