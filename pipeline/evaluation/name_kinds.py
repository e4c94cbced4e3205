"""Which words come before names of each kind, learnt from transcripts: the activation prefixes of a name list.

Zhao et al., Interspeech 2019 (activation prefixes: contacts count after "call" alone). A device knows of what kind its
lists are: here a name's kinds are the slots that hold it ("contact", "song"), and apart from them those behind another
name, as surnames are ("contact behind a name").
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from lhotse.cut import MonoCut

from pipeline.evaluation.wer import normalise

COVERAGE = 0.98  # of the names of a kind in the training transcripts must come after its prefixes
MAX_PREFIXES = 64  # of a kind that comes after more words than these nothing is learnt: it counts anywhere
ANYWHERE: frozenset[str] = frozenset()


class Occurrence(NamedTuple):
    """A name in a transcript, one of its kinds, and the word before it (None at the beginning)."""

    name: str
    kind: str
    before: str | None


def occurrences(cut: MonoCut) -> Iterator[Occurrence]:
    """Where a cut's names are said first; none where its corpus knows no names or no slots, texts by name."""
    supervision = cut.supervisions[0]
    custom, words = supervision.custom or {}, normalise(supervision.text or "").split()
    given = custom.get("slots")  # a manifest's rows may hold anything under this name
    pairs = given.items() if isinstance(given, Mapping) else ()
    slots = {kind: f" {normalise(value)} " for kind, value in pairs if isinstance(value, str)}
    names = list(filter(None, map(normalise, custom.get("names") or [])))
    last_words = {name.split()[-1] for name in names}
    for name in dict.fromkeys(names):
        place = f" {' '.join(words)} ".find(f" {name} ")
        if place < 0:
            continue
        before = " ".join(words)[:place].split()[-1:] or [None]
        for kind, value in slots.items():
            if f" {name} " in value:
                behind = " behind a name" if before[0] in last_words else ""
                yield Occurrence(name, kind + behind, before[0])


def activation_prefixes(train: Iterable[MonoCut]) -> dict[str, frozenset[str]]:
    """For each kind the fewest words that `COVERAGE` of its names come after; ANYWHERE where that takes too many, or
    where names begin sentences.
    """
    before: dict[str, Counter[str | None]] = defaultdict(Counter)
    for cut in train:
        for occurrence in occurrences(cut):
            before[occurrence.kind][occurrence.before] += 1
    return {kind: _fewest(counts) for kind, counts in sorted(before.items())}


def _fewest(counts: Counter[str | None]) -> frozenset[str]:
    chosen: set[str] = set()
    covered, wanted = 0, COVERAGE * counts.total()
    for word, count in counts.most_common():
        if covered >= wanted:
            break
        if word is None or len(chosen) == MAX_PREFIXES:
            return ANYWHERE
        chosen.add(word)
        covered += count
    return frozenset(chosen)


def words_before(
    cuts: Iterable[MonoCut], prefixes: Mapping[str, Collection[str]]
) -> dict[str, frozenset[str]]:
    """For each name in `cuts` the prefixes of all its kinds, one set for all names that share them: a list of phrases
    is grouped by these sets before every utterance. Names of a kind that counts anywhere are left out.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    for cut in cuts:
        for occurrence in occurrences(cut):
            kinds[occurrence.name].add(occurrence.kind)
    found: dict[str, frozenset[str]] = {}
    shared: dict[frozenset[str], frozenset[str]] = {}
    for name, its_kinds in kinds.items():
        each = [prefixes.get(kind, ANYWHERE) for kind in its_kinds]
        if all(each):
            words = frozenset[str]().union(*each)
            found[name] = shared.setdefault(words, words)
    return found
