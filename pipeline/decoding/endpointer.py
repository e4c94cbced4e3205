"""When has the speaker finished? A score every 80 ms, in silence every 40, two thresholds, a pure state machine.

    state = initial_state()
    state, decisions = step(state, score, tick, words_changed, EndpointConfig())

Its clock ticks every 40 ms. Tick 2 t is the middle of encoder frame t, tick 2 t + 1 its end: there words change.

The low threshold sends a SPECULATIVE_END, so that understanding may begin; the high one, or a silence that lasts too
long, sends the FINAL_END. When the words change or the score falls back in between, a REVISE takes the speculation
back. The times, the text and the lattice are added by `runtime/events.py`; the score comes from
`decoding/endpoint_model.py` or from any rule.

Source: Chang et al. 2020, "Low latency speech recognition using end-to-end prefetching" (Interspeech): a second,
lower threshold on one score, what was fetched early is thrown away when the final words differ.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pipeline.errors import UserError

TICK_MS = 40
TICKS_PER_FRAME = 2


class DecisionKind(StrEnum):
    SPECULATIVE_END = "speculative_end"
    REVISE = "revise"
    FINAL_END = "final_end"


@dataclass(frozen=True)
class EndpointConfig:
    """Thresholds on the score, silences and the price of speculation. Raises UserError for an impossible value.

    hysteresis: how far below `speculative_threshold` the score must fall to take a speculation back: a score that
    trembles on the threshold would start and stop the same work.
    max_silence_ms: a turn with words ends so long after its last change of words, whatever the score is.
    max_wait_ms: the same for a turn without words (nobody spoke after a wake word); None waits for ever.
    max_speculations: per turn; 0 makes it a single end-pointer, as do equal thresholds.
    """

    speculative_threshold: float = 0.5
    final_threshold: float = 0.9
    hysteresis: float = 0.1
    max_silence_ms: float = 2_000.0
    max_wait_ms: float | None = None
    max_speculations: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.speculative_threshold <= self.final_threshold <= 1:
            raise UserError("speculative_threshold, final_threshold: must rise and lie in (0, 1]")
        if not 0 <= self.hysteresis < self.speculative_threshold:
            raise UserError(
                "hysteresis: must be at least 0 and below speculative_threshold, or no score takes back"
            )
        if not self.max_silence_ms > 0 or (self.max_wait_ms is not None and not self.max_wait_ms > 0):
            raise UserError("max_silence_ms, max_wait_ms: must be above 0 ms")
        if self.max_speculations < 0:
            raise UserError(f"max_speculations: {self.max_speculations} must be at least 0")


@dataclass(frozen=True)
class Decision:
    """What was decided at `tick`. Equal (turn, revision) of a SPECULATIVE_END and a FINAL_END: the same words."""

    kind: DecisionKind
    turn: int
    revision: int
    tick: int

    @property
    def time_ms(self) -> int:
        """The end of the tick: before it the score did not exist."""
        return (self.tick + 1) * TICK_MS


class EndpointState(NamedTuple):
    """`turn` counts from 1. `revision` numbers what was last sent in this turn, 0 before anything was.

    `tick`: the last one heard; `quiet_since_tick`: the last at which the words changed, or at which the turn before
    ended; `speculating`: a speculation stands, neither taken back nor made final.
    """

    turn: int = 1
    revision: int = 0
    tick: int = -1
    quiet_since_tick: int = -1
    has_words: bool = False
    speculating: bool = False
    num_speculations: int = 0


def initial_state(first_tick: int = 0) -> EndpointState:
    """Before `first_tick`, with which the first frame that will be searched begins."""
    return EndpointState(tick=first_tick - 1, quiet_since_tick=first_tick - 1)


def step(
    state: EndpointState, score: float, tick: int, words_changed: bool, config: EndpointConfig
) -> tuple[EndpointState, list[Decision]]:
    """Hear one tick: `score` in [0, 1] that the speaker has finished, `words_changed` since the tick before.

    At most one decision of each kind, in the order REVISE, SPECULATIVE_END or FINAL_END. Ticks may be left out, never
    come back. Raises ValueError for a score outside [0, 1] (or no number) and for a tick that is not a later one.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"score: {score} must lie in [0, 1]")
    if tick <= state.tick:
        raise ValueError(f"tick: {tick} must come after {state.tick}")
    state = state._replace(tick=tick)
    decisions: list[Decision] = []
    if words_changed:
        state = state._replace(has_words=True, quiet_since_tick=tick)
        if state.speculating:
            state = _send(DecisionKind.REVISE, state, decisions)
    # The final comes before the fall-back: when the silence ends a turn, its standing speculation was right.
    if _is_final(state, score, config):
        state = _send(DecisionKind.FINAL_END, state, decisions)
    elif state.speculating:
        if score < config.speculative_threshold - config.hysteresis:
            state = _send(DecisionKind.REVISE, state, decisions)
    elif _may_speculate(state, config) and score >= config.speculative_threshold:
        state = _send(DecisionKind.SPECULATIVE_END, state, decisions)
    return state, decisions


def _is_final(state: EndpointState, score: float, config: EndpointConfig) -> bool:
    silence_ms = (state.tick - state.quiet_since_tick) * TICK_MS
    if state.has_words:
        return score >= config.final_threshold or silence_ms >= config.max_silence_ms
    return config.max_wait_ms is not None and silence_ms >= config.max_wait_ms


def _may_speculate(state: EndpointState, config: EndpointConfig) -> bool:
    return state.has_words and state.num_speculations < config.max_speculations


def _send(kind: DecisionKind, state: EndpointState, decisions: list[Decision]) -> EndpointState:
    """Append the decision, return the state after it. A final keeps the number of the speculation that stands."""
    is_speculation, is_final = kind == DecisionKind.SPECULATIVE_END, kind == DecisionKind.FINAL_END
    revision = state.revision + (not (is_final and state.speculating))
    decisions.append(Decision(kind, state.turn, revision, state.tick))
    if is_final:
        return EndpointState(turn=state.turn + 1, tick=state.tick, quiet_since_tick=state.tick)
    num_speculations = state.num_speculations + is_speculation
    return state._replace(revision=revision, speculating=is_speculation, num_speculations=num_speculations)
