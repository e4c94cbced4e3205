"""The device: many streams of samples in, events out; one set of weights, one batched encoder step for all of them.

    engine = Engine(load_packed("data/pack/model.sotto"))
    state = engine.stream(bias=phrases)                    # `runtime/phrases.py`, or None
    state, events = engine.accept(samples_S, state)        # 16 kHz mono, any number of samples
    state, events = engine.finish(state)                   # the last words get their final

    states, events = engine.accept_many([samples_S, …], states)      # B streams, whatever each has got

State goes in and out and is never changed in place, and two streams share none. The encoder always takes one 80 ms
frame of a stream at a time, so that events depend neither on how samples were cut into chunks nor on which streams go
together. In the silence behind words the end-pointer is asked every 40 ms. What computes is `runtime/kernels.py`.

Events are those of `runtime/events.py`; `runtime/downstream.py` says how they reach who understands or rescores them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.endpointer import TICKS_PER_FRAME
from pipeline.decoding.search import Search
from pipeline.errors import UserError
from pipeline.features.frames import FEATURES_PER_FRAME, FEATURES_PER_TICK, FRAME_S, num_frames
from pipeline.runtime import turn as turns
from pipeline.runtime.bundle import Packed
from pipeline.runtime.endpoint_score import RULE, Endpointer
from pipeline.runtime.events import Event
from pipeline.runtime.kernels import Kernels, kernels_of
from pipeline.runtime.turn import EngineConfig, Turn


class StreamState(NamedTuple):
    """What a stream remembers. `features_NF`: fewer than fill 80 ms; `frame_NF`: those of the last 80 ms; `num_frames`:
    encoded so far; `bias`: the phrases of the next turn. What comes before the turn's first frame is not searched.
    """

    fbank: Any
    features_NF: np.ndarray
    frame_NF: np.ndarray
    encoder: Any
    turn: Turn
    bias: BiasTrie | None
    num_frames: int = 0


class Engine:
    """A packed file in use. It holds no stream: any number may share it. `kernels`: others than `kernels_of` says."""

    def __init__(
        self,
        packed: Packed,
        config: EngineConfig = EngineConfig(),
        endpointer: Endpointer = RULE,
        kernels: Kernels | None = None,
    ) -> None:
        self.packed, self.config, self.endpointer = packed, config, endpointer
        self.kernels = kernels or kernels_of(packed)
        # Blank and unknown have no text, as in `Tokenizer.decode`.
        unknown = packed.tokenizer.unknown_id
        self.texts = ["" if i <= unknown else piece for i, (piece, _) in enumerate(packed.tokenizer.pieces)]

    def stream(self, bias: BiasTrie | None = None, from_s: float = 0.0) -> StreamState:
        """The state before the first sample; what comes before `from_s` (a wake word) is heard, not searched.

        Raises UserError where `from_s` is negative.
        """
        if not from_s >= 0:
            raise UserError(f"from_s: {from_s} must be 0 or more")
        features_NF = np.zeros((0, self.packed.num_mel_bins), np.float32)
        turn = turns.begin(self._search(bias), self.endpointer.score.initial(), int(from_s / FRAME_S))
        begun = self.kernels.fbank_state(), features_NF, features_NF, self.kernels.encoder_state()
        return StreamState(*begun, turn, bias)

    def with_bias(self, state: StreamState, bias: BiasTrie | None) -> StreamState:
        """Other phrases (or none) from the next turn on."""
        return state._replace(bias=bias)

    def accept(self, samples_S: np.ndarray, state: StreamState) -> tuple[StreamState, list[Event]]:
        """Hear float32 samples in [-1, 1] at 16 kHz (any number, also none)."""
        (state,), (events,) = self.accept_many([samples_S], [state])
        return state, events

    def accept_many(
        self, samples: Sequence[np.ndarray], states: Sequence[StreamState]
    ) -> tuple[list[StreamState], list[list[Event]]]:
        """Samples (S,) of each of B streams -> their states and events, in the order given.

        Raises UserError for samples that are no finite numbers.
        """
        features, after = [], []
        for samples_S, state in zip(samples, states, strict=True):
            samples_S = np.asarray(samples_S, dtype=np.float32)
            if samples_S.ndim != 1 or not _all_finite(samples_S):
                raise UserError("samples: must be finite numbers (S,), 16 kHz and one channel")
            features_NF, fbank_state = self.kernels.features(samples_S, state.fbank)
            features.append(features_NF)
            after.append(state._replace(fbank=fbank_state))
        return self._advance(features, after)

    def finish(self, state: StreamState) -> tuple[StreamState, list[Event]]:
        """No sample will come: what was held back is decoded, and a turn with words gets its final."""
        features_NF = self.kernels.last_features(state.fbank)
        heard = num_frames(state.fbank.num_samples)
        if 0 < heard < FEATURES_PER_FRAME:  # as for whole recordings: padded to one frame
            features_NF = np.pad(features_NF, ((0, FEATURES_PER_FRAME - heard), (0, 0)))
        (state,), (events,) = self._advance([features_NF], [state])
        (state,), (more,) = self._hear([self.kernels.last_frames(state.encoder)], [state])
        turn, last = turns.end(state.turn, self.config, self.endpointer.config, self.texts)
        return state._replace(turn=turn), [*events, *more, *last]

    def _search(self, bias: BiasTrie | None) -> Search:
        return self.kernels.search(self.config.beam, bias, self.packed.lexicon)

    def _advance(
        self, features: Sequence[np.ndarray], states: Sequence[StreamState]
    ) -> tuple[list[StreamState], list[list[Event]]]:
        """New feature frames (N, F) of each stream: frame by frame, all that have a full one together."""
        waiting = [
            np.concatenate([s.features_NF, new_NF]) if len(s.features_NF) else new_NF
            for s, new_NF in zip(states, features, strict=True)
        ]
        states, events = list(states), [[] for _ in states]
        while True:
            self._hear_halves(waiting, states, events)
            ready = [i for i, waiting_NF in enumerate(waiting) if len(waiting_NF) >= FEATURES_PER_FRAME]
            if not ready:
                break
            features_BNF = np.array([waiting[i][:FEATURES_PER_FRAME] for i in ready])
            encoded, encoders = self.kernels.encode(features_BNF, [states[i].encoder for i in ready])
            stepped = [
                states[i]._replace(encoder=e, frame_NF=features_NF)
                for i, e, features_NF in zip(ready, encoders, features_BNF, strict=True)
            ]
            for i, state, said in zip(ready, *self._hear(encoded, stepped), strict=True):
                waiting[i], states[i] = waiting[i][FEATURES_PER_FRAME:], state
                events[i] += said
        # A copy, or a state would hold the memory of all the features that it was cut from.
        kept = zip(states, waiting, strict=True)
        return [s._replace(features_NF=rest_NF.copy()) for s, rest_NF in kept], events

    def _hear_halves(
        self, waiting: Sequence[np.ndarray], states: list[StreamState], events: list[list[Event]]
    ) -> None:
        """The middle of the frame that waits, where a silence asks for it; what comes of it goes into the two lists."""
        settle_ms = self.config.settle_ms
        there = [
            i
            for i, (waiting_NF, state) in enumerate(zip(waiting, states, strict=True))
            if len(waiting_NF) >= FEATURES_PER_TICK
            and turns.awaits_half(state.turn, state.num_frames, settle_ms)
        ]
        if not there:
            return
        change_BF = np.array([_change(states[i].frame_NF, waiting[i][:FEATURES_PER_TICK]) for i in there])
        scores, hidden = self.endpointer.score.half(change_BF, [states[i].turn.hidden for i in there])
        for i, score, hidden_H in zip(there, scores, hidden, strict=True):
            tick = TICKS_PER_FRAME * states[i].num_frames
            turn, said = self._decide(states[i], states[i].turn, score, hidden_H, tick, words_changed=False)
            states[i] = states[i]._replace(turn=turn)
            events[i] += said

    def _hear(
        self, encoded: Sequence[np.ndarray], states: Sequence[StreamState]
    ) -> tuple[list[StreamState], list[list[Event]]]:
        """Encoder frames (T, D) of each stream; T may differ, an encoder with look-ahead gives none or several."""
        states, events = list(states), [[] for _ in states]
        for t in range(max(map(len, encoded), default=0)):
            there = [i for i, encoded_TD in enumerate(encoded) if t < len(encoded_TD)]
            searched = [i for i in there if states[i].num_frames >= states[i].turn.first_frame]
            if searched:
                encoded_BD = np.array([encoded[i][t] for i in searched])
                heard = self._frame(encoded_BD, [states[i] for i in searched])
                for i, (turn, said) in zip(searched, heard, strict=True):
                    states[i] = states[i]._replace(turn=turn, num_frames=states[i].num_frames + 1)
                    events[i] += said
            for i in set(there).difference(searched):
                states[i] = states[i]._replace(num_frames=states[i].num_frames + 1)
        return states, events

    def _frame(self, encoded_BD: np.ndarray, states: Sequence[StreamState]) -> list[tuple[Turn, list[Event]]]:
        """One frame of each stream: search, then the score of all, then the decisions."""
        spell, settle_ms = self.packed.tokenizer.decode, self.config.settle_ms
        found = [
            turns.search_frame(state.turn, encoded_1D, state.num_frames, spell, settle_ms)
            for state, encoded_1D in zip(states, encoded_BD[:, None], strict=True)
        ]
        pause_BD = np.array([heard.pause_D for _, heard in found], np.float32)
        scores, hidden = self.endpointer.score(encoded_BD, pause_BD, [turn.hidden for turn, _ in found])
        return [
            self._decide(state, turn, score, hidden_H, turns.last_tick(state.num_frames), heard.words_changed)
            for state, (turn, heard), score, hidden_H in zip(states, found, scores, hidden, strict=True)
        ]

    def _decide(
        self, state: StreamState, turn: Turn, score: float, hidden: Any, tick: int, words_changed: bool
    ) -> tuple[Turn, list[Event]]:
        """What a score leads to: events, and the turn that goes on or follows."""
        number, thresholds = turn.endpoint.turn, self.endpointer.config
        turn, said = turns.decide(
            turn, score, hidden, tick, words_changed, self.config, thresholds, self.texts
        )
        if turns.has_ended(turn, number) or turns.is_idle(turn, tick, self.config):
            turn = turns.follow(turn, self._search(state.bias), self.endpointer.score.initial(), tick)
        return turn, said


def _all_finite(samples_S: np.ndarray) -> bool:
    """One product tells, unless it overflows; looking at each sample takes five times as long."""
    return math.isfinite(samples_S @ samples_S) or bool(np.isfinite(samples_S).all())


def _change(before_NF: np.ndarray, now_NF: np.ndarray) -> np.ndarray:
    """How the sound has changed (`EndpointModel.half`). Means by hand: NumPy's take twice the time."""
    change_F: np.ndarray = now_NF.sum(0) / len(now_NF) - before_NF.sum(0) / len(before_NF)
    return change_F
