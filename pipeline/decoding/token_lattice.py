"""What a beam search leaves behind: every arc between states that it kept, frame by frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

BLANK_ID = 0
SLACK = 1e-4  # nats; rounding must not cost the best path


class TokenArc(NamedTuple):
    """From state `source` before a frame to state `target` after it; `acoustic` and `bonus` in nats."""

    source: int
    target: int
    token: int
    acoustic: float
    bonus: float


@dataclass(frozen=True)
class TokenLattice:
    """`frames[t]`: arcs of 80 ms frame t; frame 0 begins in state 0. `final_bonuses[s]`: for ending in state s.

    States that no arc leaves before the last frame are dead ends; they have no completion.
    """

    frames: tuple[tuple[TokenArc, ...], ...]
    final_bonuses: tuple[float, ...]


@dataclass(frozen=True)
class TokenPath:
    """`frames[k]`: 80 ms frame of `tokens[k]`; `log_prob` of the model and `bonus` of bias and lexicon, all nats."""

    tokens: list[int]
    frames: list[int]
    log_prob: float
    bonus: float

    @classmethod
    def of(cls, symbols_T: Sequence[int], log_prob: float, bonus: float = 0.0) -> "TokenPath":
        """From each frame's symbol, blanks among them."""
        frames = [t for t, symbol in enumerate(symbols_T) if symbol != BLANK_ID]
        return cls([symbols_T[t] for t in frames], frames, log_prob, bonus)


def completions(lattice: TokenLattice) -> list[dict[int, float]]:
    """`[t][s]`: the best sum of scores and bonuses from state s before frame t to the end (T + 1 entries).

    Dead ends are missing.
    """
    scores = [dict(enumerate(lattice.final_bonuses))]
    for arcs in reversed(lattice.frames):
        before: dict[int, float] = {}
        for arc in arcs:
            if arc.target in scores[-1]:
                score = arc.acoustic + arc.bonus + scores[-1][arc.target]
                before[arc.source] = max(score, before.get(arc.source, -inf))
        scores.append(before)
    return scores[::-1]


def near_best(lattice: TokenLattice, beam: float) -> TokenLattice:
    """The arcs on a path at most `beam` nats worse than the best."""
    after, before, frames = completions(lattice), {0: 0.0}, []
    worst = after[0][0] - beam - SLACK
    for arcs, completion in zip(lattice.frames, after[1:], strict=True):
        reached: dict[int, float] = {}
        kept = []
        for arc in arcs:
            score = before[arc.source] + arc.acoustic + arc.bonus
            reached[arc.target] = max(score, reached.get(arc.target, -inf))
            if score + completion.get(arc.target, -inf) >= worst:
                kept.append(arc)
        before = reached
        frames.append(tuple(kept))
    return TokenLattice(tuple(frames), lattice.final_bonuses)


def best_tokens(lattice: TokenLattice) -> TokenPath:
    """The path with the largest sum of log probability and bonus."""
    after = completions(lattice)
    state, tokens, frames, log_prob, bonus = 0, [], [], 0.0, 0.0
    for t, arcs in enumerate(lattice.frames):
        leaving = [arc for arc in arcs if arc.source == state]
        arc = max(leaving, key=lambda a: a.acoustic + a.bonus + after[t + 1].get(a.target, -inf))
        state, log_prob, bonus = arc.target, log_prob + arc.acoustic, bonus + arc.bonus
        if arc.token != BLANK_ID:
            tokens.append(arc.token)
            frames.append(t)
    return TokenPath(tokens, frames, log_prob, bonus + lattice.final_bonuses[state])
