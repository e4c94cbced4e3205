"""The arcs that a compiled search leaves behind, as arrays, and the lattice of those near the best path.

Most arcs of a frame are never looked at again: only what is asked for becomes `TokenArc`s.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.decoding.token_lattice import SLACK, TokenArc, TokenLattice
from pipeline.runtime.fast_step import compiled


class FrameArcs(NamedTuple):
    """The A arcs of a frame, best first: (source, target, token) and (acoustic, bonus) of each."""

    places_3A: np.ndarray
    scores_2A: np.ndarray

    def tokens(self) -> tuple[TokenArc, ...]:
        return tuple(map(TokenArc, *self.places_3A.tolist(), *self.scores_2A.tolist()))


def near_best(frames: Sequence[FrameArcs], final_bonuses_S: np.ndarray, beam: float) -> TokenLattice:
    """`token_lattice.near_best` of these frames."""
    finals = tuple(final_bonuses_S.tolist())
    if not frames:
        return TokenLattice((), finals)
    ends_T = np.cumsum([frame.places_3A.shape[1] for frame in frames])
    places_3X = np.concatenate([frame.places_3A for frame in frames], axis=1)
    scores_2X = np.concatenate([frame.scores_2A for frame in frames], axis=1)
    kept_X = _near_best(ends_T, places_3X, scores_2X, final_bonuses_S, beam + SLACK)
    arcs = FrameArcs(places_3X[:, kept_X], scores_2X[:, kept_X]).tokens()
    kept_ends = np.searchsorted(np.flatnonzero(kept_X), ends_T).tolist()
    starts = [0, *kept_ends[:-1]]
    return TokenLattice(tuple(arcs[start:end] for start, end in zip(starts, kept_ends, strict=True)), finals)


@compiled
def _near_best(ends_T, places_3X, scores_2X, final_bonuses_S, beam):
    """Which arcs lie on a path at most `beam` nats worse than the best."""
    num_arcs, most = places_3X.shape[1], max(places_3X[:2].max() + 1, len(final_bonuses_S))
    through_X, x = np.empty(num_arcs, np.float64), 0  # the best path up to and through an arc
    before_S = np.full(most, -np.inf)
    before_S[0] = 0.0
    for end in ends_T:
        after_S = np.full(most, -np.inf)
        while x < end:
            source, target = places_3X[0, x], places_3X[1, x]
            through_X[x] = before_S[source] + scores_2X[0, x] + scores_2X[1, x]
            after_S[target] = max(after_S[target], through_X[x])
            x += 1
        before_S = after_S
    after_S = np.full(most, -np.inf)  # the best path from a state to the end
    after_S[: len(final_bonuses_S)] = final_bonuses_S
    best = (before_S + after_S).max()
    x = num_arcs - 1
    for t in range(len(ends_T) - 1, -1, -1):
        start = ends_T[t - 1] if t else 0
        before_S = np.full(most, -np.inf)
        while x >= start:
            source, onward = places_3X[0, x], after_S[places_3X[1, x]]
            before_S[source] = max(before_S[source], scores_2X[0, x] + scores_2X[1, x] + onward)
            through_X[x] += onward
            x -= 1
        after_S = before_S
    return through_X >= best - beam
