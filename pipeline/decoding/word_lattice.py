"""Token lattice -> word lattice with one path for each word sequence: determinisation on the fly, best first.

A node of the result is a set of places in the token lattice, each with what it lies behind the set's best one
(Mohri 1997, with Kaldi's pairs of scores as weights: Povey et al. 2012, "Generating exact lattices in the WFST
framework"). Every word sequence gets exactly the score of its best token path. An arc's frames are those of the best
token path through the arc. Nodes are opened in the order of the best whole path through them, so that a limit on their
number cuts away the least probable word sequences.
"""

import heapq
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from pipeline.corpus.tokenizer import SPACE
from pipeline.decoding.lattice import Arc, Lattice, build, minimise
from pipeline.decoding.token_lattice import SLACK, TokenArc, TokenLattice, completions

DECIMALS = 6  # sets whose scores agree so far are one node
END = -1


class Place(NamedTuple):
    """State `state` before frame `frame`, where a word may begin; `open`: also with a piece that lacks SPACE."""

    frame: int
    state: int
    open: bool


END_PLACE = Place(END, END, True)


class Weight(NamedTuple):
    """Scores in nats since the set before; the word's first frame, and the one after its last piece."""

    acoustic: float
    bonus: float
    start_frame: int
    end_frame: int

    @property
    def total(self) -> float:
        return self.acoustic + self.bonus


Places = dict[Place, Weight]


def to_words(tokens: TokenLattice, texts: Sequence[str], beam: float = 8.0, max_nodes: int = 1000) -> Lattice:
    """All word sequences within `beam` nats of the best; beyond `max_nodes` the worst are missing, never the best.

    `texts`: text of each token, "▁" where a word begins, "" for tokens without text (blank, unknown). Blanks count to
    the word before them; those before the first word to that one.
    """
    speller = _Speller(tokens, texts, beam)
    forward = {0: 0.0}
    spelled = speller.words({Place(0, 0, True): Weight(0.0, 0.0, 0, 0)}, at_start=True)
    first, best = spelled.get("", {}), speller.after[0][0]
    silence = first.pop(END_PLACE, None)
    arcs = [_arc(0, END, "", silence)] if silence else []
    has_best = silence is not None and silence.total >= best - SLACK
    sets, number_of = {0: first}, dict[frozenset, int]()
    queue, opened = [(-best, 0)], set[int]()
    while queue:
        _, number = heapq.heappop(queue)
        if len(opened) >= max_nodes and has_best:
            break
        if number in opened:
            continue
        opened.add(number)
        for word, places in speller.words(sets[number]).items():
            ends = places.pop(END_PLACE, None)
            if ends and forward[number] + ends.total >= best - beam - SLACK:
                arcs.append(_arc(number, END, word, ends))
                has_best = has_best or forward[number] + ends.total >= best - SLACK
            if not places:
                continue
            lead = max(places, key=lambda place: (places[place].total + speller.completion(place), place))
            through = forward[number] + places[lead].total + speller.completion(lead)
            if through < best - beam - SLACK:
                continue
            rest = {place: _behind(weight, places[lead]) for place, weight in places.items()}
            key = frozenset(
                (p, round(w.acoustic, DECIMALS), round(w.bonus, DECIMALS)) for p, w in rest.items()
            )
            target = number_of.setdefault(key, len(sets))
            sets.setdefault(target, rest)
            arcs.append(_arc(number, target, word, places[lead]))
            reached = forward[number] + places[lead].total
            if reached > forward.get(target, -inf):
                forward[target] = reached
                heapq.heappush(queue, (-through, target))
    return minimise(build(0, END, arcs, len(tokens.frames)), DECIMALS)


def _arc(source: int, target: int, word: str, weight: Weight) -> Arc:
    return Arc(source, target, word, *weight)


def _behind(weight: Weight, lead: Weight) -> Weight:
    return Weight(weight.acoustic - lead.acoustic, weight.bonus - lead.bonus, 0, 0)


class _Speller:
    """Reads one word on from a set of places, along all token paths at once."""

    def __init__(self, tokens: TokenLattice, texts: Sequence[str], beam: float):
        self.texts, self.beam = texts, beam
        self.after, self.final_bonuses = completions(tokens), tokens.final_bonuses
        self.leaving: list[dict[int, list[TokenArc]]] = []
        for t, arcs in enumerate(tokens.frames):
            by_source: dict[int, list[TokenArc]] = {}
            for arc in arcs:
                if arc.target in self.after[t + 1]:
                    by_source.setdefault(arc.source, []).append(arc)
            self.leaving.append(by_source)

    def completion(self, place: Place) -> float:
        return self.after[place.frame][place.state]

    def words(self, places: Places, at_start: bool = False) -> dict[str, Places]:
        """{word: where the next one may begin, with the best weight to there}; END_PLACE: the utterance's end.

        `at_start`: what comes before the first word, as the word "".
        """
        if not places:
            return {}
        worst = max(weight.total + self.completion(place) for place, weight in places.items())
        worst -= self.beam + SLACK
        found: dict[str, Places] = {}
        last, last_place = len(self.leaving), max(place.frame for place in places)
        # State and what was read, SPACE behind if a word may follow.
        spelled: dict[tuple[int, str], Weight] = {}
        for t in range(min(place.frame for place in places), last):
            if not spelled and t > last_place:
                break
            ahead: dict[tuple[int, str], Weight] = {}
            if at_start and t == 0:
                spelled = {(0, SPACE): Weight(0.0, 0.0, 0, 0)}
            for (state, text), weight in spelled.items():
                for arc in self.leaving[t][state]:
                    piece = self.texts[arc.token]
                    if self._begins(piece, text.endswith(SPACE)):
                        place = Place(t, state, text.endswith(SPACE))
                        _keep(found.setdefault(text.rstrip(SPACE), {}), place, weight)
                    else:
                        longer = text if piece == SPACE and text.endswith(SPACE) else text + piece
                        end = t + 1 if piece.strip(SPACE) else weight.end_frame
                        self._go(ahead, t, arc, longer, weight, (weight.start_frame, end), worst)
            for place, weight in places.items():
                if place.frame == t and not at_start:
                    for arc in self.leaving[t][place.state]:
                        piece = self.texts[arc.token]
                        if self._begins(piece, place.open):
                            self._go(ahead, t, arc, piece.lstrip(SPACE), weight, (t, t + 1), worst)
            spelled = ahead
        if at_start and not last:
            spelled = {(0, SPACE): Weight(0.0, 0.0, 0, 0)}
        for (state, text), weight in spelled.items():
            ended = weight._replace(bonus=weight.bonus + self.final_bonuses[state])
            _keep(found.setdefault(text.rstrip(SPACE), {}), END_PLACE, ended)
        return found

    def _begins(self, piece: str, open_: bool) -> bool:
        return bool(piece.strip(SPACE)) and (open_ or piece.startswith(SPACE))

    def _go(
        self,
        ahead: dict,
        t: int,
        arc: TokenArc,
        text: str,
        weight: Weight,
        frames: tuple[int, int],
        worst: float,
    ) -> None:
        acoustic, bonus = weight.acoustic + arc.acoustic, weight.bonus + arc.bonus
        if acoustic + bonus + self.after[t + 1][arc.target] >= worst:  # most end here, at little cost
            _keep(ahead, (arc.target, text), Weight(acoustic, bonus, *frames))


def _keep(table: dict, key: object, weight: Weight) -> None:
    if key not in table or weight.total > table[key].total:
        table[key] = weight
