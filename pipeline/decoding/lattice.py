"""Word lattices: what was perhaps said, and how probable the search found it.

Node 0 is the start and the last node the end; arcs go from lower to higher nodes and every node lies on a path from
start to end. `build` brings arcs into that shape, all else relies on it. Scores are log probabilities in nats; a
path's score is the sum of `total` over its arcs, or of whatever a second pass puts in the place of `total`.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from operator import itemgetter
from typing import NamedTuple

from pipeline.decoding.token_lattice import SLACK


class Arc(NamedTuple):
    """A word from node `source` to `target`. "" is no word: such an arc says that nothing was said.

    `acoustic`: log probability of the model; `bonus`: credit of the bias, which a second pass may take back (nats).
    The word's first piece came in 80 ms frame `start_frame`, its last one in `end_frame` - 1.
    """

    source: int
    target: int
    word: str
    acoustic: float
    bonus: float
    start_frame: int
    end_frame: int


Score = Callable[[Arc], float]


@dataclass(frozen=True)
class Lattice:
    """`arcs`, ordered by their source, between `num_nodes` nodes, over `num_frames` frames of 80 ms."""

    num_nodes: int
    num_frames: int
    arcs: tuple[Arc, ...]


@dataclass(frozen=True)
class Path:
    """Arcs from the start to the end, and the sum of their scores."""

    arcs: tuple[Arc, ...]
    score: float

    @property
    def words(self) -> list[str]:
        return [arc.word for arc in self.arcs if arc.word]


def total(arc: Arc) -> float:
    """The score of the first pass: log probability plus bonus."""
    return arc.acoustic + arc.bonus


def build(start: int, end: int, arcs: Iterable[Arc], num_frames: int) -> Lattice:
    """Arcs between nodes of any numbers, no circle among them -> lattice; equal ones count once, and what
    lies on no path is left out.

    Nodes are numbered in the order of their times. Raises ValueError if no path leads from start to end.
    """
    arcs = list(dict.fromkeys(arcs))
    reached = _reachable(start, [(arc.source, arc.target) for arc in arcs])
    useful = reached & _reachable(end, [(arc.target, arc.source) for arc in arcs])
    if start == end or not {start, end} <= useful:
        raise ValueError("no path leads from the start of the lattice to its end")
    leaving: dict[int, list[Arc]] = {node: [] for node in useful}
    num_waiting, time = dict.fromkeys(useful, 0), dict.fromkeys(useful, 0)
    for arc in arcs:
        if arc.source in useful and arc.target in useful:
            leaving[arc.source].append(arc)
            num_waiting[arc.target] += 1
            time[arc.target] = max(time[arc.target], arc.end_frame)
    queue = [] if num_waiting[start] else [(0, start)]
    number: dict[int, int] = {}
    while queue:
        _, node = heapq.heappop(queue)
        number[node] = len(number)
        for arc in leaving[node]:
            num_waiting[arc.target] -= 1
            if not num_waiting[arc.target]:
                heapq.heappush(queue, (time[arc.target], arc.target))
    if len(number) < len(useful):
        raise ValueError("the arcs of a lattice may not form a circle")
    ordered = [
        arc._replace(source=number[node], target=number[arc.target])
        for node in number
        for arc in leaving[node]
    ]
    return Lattice(len(number), num_frames, tuple(sorted(ordered)))


def minimise(lattice: Lattice, decimals: int) -> Lattice:
    """Nodes from which the same arcs lead on, scores equal to so many decimals, become one node."""
    kept: dict[frozenset, int] = {}
    same = list(range(lattice.num_nodes))
    leaving = _by_node(lattice, "source")
    for node in reversed(range(lattice.num_nodes)):
        ahead = frozenset(
            (same[a.target], a.word, round(a.acoustic, decimals), round(a.bonus, decimals), *a[5:])
            for a in leaving[node]
        )
        same[node] = kept.setdefault(ahead, node)
    arcs = [arc._replace(target=same[arc.target]) for arc in lattice.arcs if same[arc.source] == arc.source]
    return build(0, same[-1], arcs, lattice.num_frames)


def best_path(lattice: Lattice, score: Score = total) -> Path:
    """The path with the highest score."""
    return n_best(lattice, 1, score)[0]


def n_best(lattice: Lattice, num_paths: int, score: Score = total) -> list[Path]:
    """The paths with the highest scores, best first; fewer if the lattice has fewer.

    Exact: from the end backwards, the best ways on from each node. At most arcs x `num_paths` steps for any lattice,
    where a best-first search takes exponentially many if scores are alike.
    """
    leaving = _by_node(lattice, "source")
    ahead: list[list[tuple[float, Arc | None, int]]] = [[] for _ in range(lattice.num_nodes)]
    ahead[-1] = [(0.0, None, 0)]
    for node in reversed(range(lattice.num_nodes - 1)):
        ways = (
            (score(arc) + further[0], arc, number)
            for arc in leaving[node]
            for number, further in enumerate(ahead[arc.target])
        )
        ahead[node] = heapq.nlargest(num_paths, ways, key=itemgetter(0))
    return [Path(_unrolled(ahead, number), way[0]) for number, way in enumerate(ahead[0])]


def best_before(lattice: Lattice, score: Score = total) -> list[float]:
    """The highest score of a path from the start to each node."""
    before = [0.0] + [-inf] * (lattice.num_nodes - 1)
    for arc in lattice.arcs:
        before[arc.target] = max(before[arc.target], before[arc.source] + score(arc))
    return before


def best_after(lattice: Lattice, score: Score = total) -> list[float]:
    """The highest score of a path from each node to the end."""
    after = [-inf] * (lattice.num_nodes - 1) + [0.0]
    for arc in reversed(lattice.arcs):
        after[arc.source] = max(after[arc.source], after[arc.target] + score(arc))
    return after


def posteriors(lattice: Lattice, score: Score = total) -> list[float]:
    """The share of each arc in the sum of exp(score) over all paths (forward-backward)."""
    before = [0.0] + [-inf] * (lattice.num_nodes - 1)
    after = before[::-1]
    for arc in lattice.arcs:
        before[arc.target] = _log_add(before[arc.target], before[arc.source] + score(arc))
    for arc in reversed(lattice.arcs):
        after[arc.source] = _log_add(after[arc.source], after[arc.target] + score(arc))
    return [exp(before[arc.source] + score(arc) + after[arc.target] - after[0]) for arc in lattice.arcs]


def prune_to_beam(lattice: Lattice, beam: float, score: Score = total) -> Lattice:
    """Without the arcs whose best path lies more than `beam` nats below the best of all. The best path stays."""
    through = _through(lattice, score)
    worst = max(through) - beam - SLACK
    return _only(lattice, [number for number, best in enumerate(through) if best >= worst])


def prune_to_arcs(lattice: Lattice, max_arcs: int, score: Score = total) -> Lattice:
    """At most `max_arcs` arcs, those on the best paths; never fewer than the best path has."""
    through = _through(lattice, score)
    on_best = set(best_path(lattice, score).arcs)
    ranked = sorted(range(len(through)), key=lambda n: (lattice.arcs[n] not in on_best, -through[n], n))
    return _only(lattice, ranked[: max(max_arcs, len(on_best))])


def _through(lattice: Lattice, score: Score) -> list[float]:
    before, after = best_before(lattice, score), best_after(lattice, score)
    return [before[arc.source] + score(arc) + after[arc.target] for arc in lattice.arcs]


def _only(lattice: Lattice, numbers: Iterable[int]) -> Lattice:
    arcs = [lattice.arcs[number] for number in sorted(numbers)]
    return build(0, lattice.num_nodes - 1, arcs, lattice.num_frames)


def _by_node(lattice: Lattice, which: str) -> list[list[Arc]]:
    arcs_of: list[list[Arc]] = [[] for _ in range(lattice.num_nodes)]
    for arc in lattice.arcs:
        arcs_of[getattr(arc, which)].append(arc)
    return arcs_of


def _reachable(first: int, steps: Sequence[tuple[int, int]]) -> set[int]:
    following: dict[int, list[int]] = {}
    for source, target in steps:
        following.setdefault(source, []).append(target)
    seen, waiting = {first}, [first]
    while waiting:
        new = [node for node in following.get(waiting.pop(), []) if node not in seen]
        seen.update(new)
        waiting += new
    return seen


def _unrolled(ahead: Sequence[Sequence[tuple]], number: int) -> tuple[Arc, ...]:
    arcs, node = [], 0
    while (way := ahead[node][number])[1] is not None:
        _, arc, number = way
        arcs.append(arc)
        node = arc.target
    return tuple(arcs)


def _log_add(left: float, right: float) -> float:
    high, low = max(left, right), min(left, right)
    return high if low == -inf else high + log(1.0 + exp(low - high))
