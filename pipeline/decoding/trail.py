"""The best path of a beam search so far, kept up frame by frame: what a partial result and an end-pointer ask for.

A state's trail is that of the best arc into it (its move), with the arc's token behind. Trails share their beginnings
and blank gives a state the very trail of its source, so that a frame costs one look at each state and "nothing was
said in this frame" is an identity. `token_lattice.best_tokens` of the finished search is the slow twin.
"""

from collections.abc import Iterable
from math import exp
from typing import NamedTuple, Optional

from pipeline.decoding.token_lattice import BLANK_ID, TokenArc


class Trail(NamedTuple):
    """`token`, emitted in `frame` (80 ms, from the start of the search), behind those of `before`."""

    before: Optional["Trail"]
    token: int
    frame: int


Trails = tuple[Trail | None, ...]  # of each state; None: no token yet
START: Trails = (None,)


def extend(trails: Trails, moves: Iterable[tuple[int, int]], frame: int) -> Trails:
    """The trails after a frame with these moves, (source, token) of each state."""
    return tuple(
        [
            trails[source] if token == BLANK_ID else Trail(trails[source], token, frame)
            for source, token in moves
        ]
    )


def moves_of(arcs: Iterable[TokenArc]) -> list[tuple[int, int]]:
    """(source, token) of the best arc into each state, out of a frame's arcs, the best first."""
    first: dict[int, tuple[int, int]] = {}
    for arc in arcs:
        first.setdefault(arc.target, (arc.source, arc.token))
    return [first[state] for state in range(len(first))]


def tokens_of(trail: Trail | None) -> list[int]:
    """Its tokens, the first one first."""
    tokens = []
    while trail is not None:
        tokens.append(trail.token)
        trail = trail.before
    return tokens[::-1]


def blank_posterior(arcs: tuple[TokenArc, ...], state: int) -> float:
    """P(blank) in a frame, after the context from which its best arc into `state` came; 0 where it was pruned."""
    source = next(arc.source for arc in arcs if arc.target == state)
    for arc in arcs:
        if arc.source == source and arc.token == BLANK_ID:
            return min(1.0, exp(arc.acoustic))
    return 0.0
