"""The best path of a beam search so far, kept up frame by frame: what a partial result and an end-pointer ask for.

A state's trail is that of the best arc into it (its move), with the arc's token behind. Trails share their beginnings
and blank gives a state the very trail of its source, so that a frame costs one look at each state and "nothing was
said in this frame" is an identity. `token_lattice.best_tokens` of the finished search is the slow twin.
"""

from collections.abc import Iterable
from math import exp
from typing import Optional

from pipeline.decoding.token_lattice import BLANK_ID, TokenArc

# The trail before, the token behind it, the frame (80 ms, from the start of the search) that emitted it. A plain tuple:
# with a list of phrases some are made in every frame, and a named one costs several times as much.
Trail = tuple[Optional["Trail"], int, int]
Trails = tuple[Trail | None, ...]  # of each state; None: no token yet
START: Trails = (None,)


def extend(trails: Trails, moves: Iterable[tuple[int, int]], frame: int) -> Trails:
    """The trails after a frame with these moves, (source, token) of each state."""
    return tuple(
        [trails[source] if token == BLANK_ID else (trails[source], token, frame) for source, token in moves]
    )


def last_frame(trail: Trail | None) -> int:
    """The frame of its last token, -1 where it has none."""
    return trail[2] if trail else -1


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
        trail, token, _ = trail
        tokens.append(token)
    return tokens[::-1]


def blank_posterior(arcs: tuple[TokenArc, ...], state: int) -> float:
    """P(blank) in a frame, after the context from which its best arc into `state` came; 0 where it was pruned."""
    source = next(arc.source for arc in arcs if arc.target == state)
    for arc in arcs:
        if arc.source == source and arc.token == BLANK_ID:
            return min(1.0, exp(arc.acoustic))
    return 0.0
