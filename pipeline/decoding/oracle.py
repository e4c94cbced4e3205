"""The path of a lattice that comes closest to what was said: what a second pass could reach at best.

Exact: the edit distance's dynamic programme over nodes instead of words (Kaldi's `lattice-oracle` composes with an
edit transducer to the same end). Lattice WER at equal density compares search settings; see Prabhavalkar et al. 2021.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from pipeline.decoding.lattice import Arc, Lattice


@dataclass(frozen=True)
class Oracle:
    """`num_errors`: fewest substitutions, deletions and insertions; `arcs`: a path that has them.

    `pairs`: (reference word, lattice word); None on the left is an insertion, on the right a deletion.
    """

    num_errors: int
    arcs: tuple[Arc, ...]
    pairs: list[tuple[str | None, str | None]]


def oracle(lattice: Lattice, reference: Sequence[str]) -> Oracle:
    """The alignment with the fewest errors of any path with the reference's U words: O(arcs x U)."""
    size = len(reference) + 1
    cost = [[inf] * size for _ in range(lattice.num_nodes)]
    came: list[list[tuple[int, Arc | None]]] = [[(0, None)] * size for _ in range(lattice.num_nodes)]
    cost[0][0] = 0
    _delete(cost[0], came[0])
    finished = 0  # nodes below are final: arcs are ordered by their source
    for arc in lattice.arcs:
        while finished < arc.source:
            finished += 1
            _delete(cost[finished], came[finished])
        for u in range(size):
            _offer(cost, came, arc, u, u, cost[arc.source][u] + bool(arc.word))
            if u and arc.word:
                wrong = arc.word != reference[u - 1]
                _offer(cost, came, arc, u - 1, u, cost[arc.source][u - 1] + wrong)
    _delete(cost[-1], came[-1])
    arcs, pairs = _trace(came, reference)
    return Oracle(int(cost[-1][-1]), arcs, pairs)


def _offer(cost: list, came: list, arc: Arc, before: int, u: int, errors: float) -> None:
    if errors < cost[arc.target][u]:
        cost[arc.target][u], came[arc.target][u] = errors, (before, arc)


def _delete(cost_U: list[float], came_U: list[tuple[int, Arc | None]]) -> None:
    for u in range(1, len(cost_U)):
        if cost_U[u - 1] + 1 < cost_U[u]:
            cost_U[u], came_U[u] = cost_U[u - 1] + 1, (u - 1, None)


def _trace(came: list, reference: Sequence[str]) -> tuple[tuple[Arc, ...], list]:
    node, u = len(came) - 1, len(reference)
    arcs: list[Arc] = []
    pairs: list[tuple[str | None, str | None]] = []
    while (node, u) != (0, 0):
        before, arc = came[node][u]
        left = reference[before] if before < u else None
        if arc is not None:
            arcs.append(arc)
            node = arc.source
        if left is not None or (arc is not None and arc.word):
            pairs.append((left, arc.word if arc is not None else None))
        u = before
    return tuple(reversed(arcs)), pairs[::-1]
