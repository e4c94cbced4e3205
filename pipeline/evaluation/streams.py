"""Test sets through the engine: what it heard, when it decided, with which lattices; tracks for choosing thresholds.

An utterance ends soon after its last word, where a microphone would stay open: `with_silence` puts more of the same
background behind it, so that the slowest end-pointer has time to decide.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.endpointer import TICK_MS, TICKS_PER_FRAME, EndpointConfig
from pipeline.evaluation.endpointing import Outcome
from pipeline.evaluation.thresholds import Track
from pipeline.features.frames import FRAME_S
from pipeline.runtime.endpoint_score import Endpointer, Score
from pipeline.runtime.engine import Engine
from pipeline.runtime.events import Event, FinalEnd, Revise, SpeculativeEnd
from pipeline.runtime.turn import last_tick

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

STEP_S = 0.01  # of loudness: a feature frame
BACKGROUND_STEPS = 10
NEVER = EndpointConfig(1.0, 1.0, max_silence_ms=1e12, max_speculations=0)
BATCH = 16


def speech_end_s(cut: "MonoCut") -> float:
    """When the last word ended; the end of the recording where its corpus does not say."""
    return float((cut.supervisions[0].custom or {}).get("speech_end_s") or cut.duration)


def wake_end_s(cut: "MonoCut") -> float:
    return float((cut.supervisions[0].custom or {}).get("wake_word_end_s") or 0.0)


def spread(items: list, count: int) -> list:
    """`count` of the items (or all, where there are fewer), evenly over the whole list."""
    places = np.linspace(0, len(items), min(count, len(items)), endpoint=False)
    return [items[int(place)] for place in places]


def background(loudness_N: np.ndarray, speech_end_step: int) -> tuple[int, int]:
    """Steps [start, stop) of background alone: the later half of what follows the speech, or, where that is less than
    0.1 s, the quietest 0.1 s of all.
    """
    num = len(loudness_N)
    start = (speech_end_step + num) // 2
    if num - start >= BACKGROUND_STEPS:
        return start, num
    size = min(BACKGROUND_STEPS, num)
    means = np.convolve(loudness_N, np.ones(size), "valid")
    quietest = int(means.argmin())
    return quietest, quietest + size


def continued(values_NX: np.ndarray, start: int, stop: int, count: int) -> np.ndarray:
    """`values_NX` with `count` more rows: [start, stop) again and again, backwards and forwards, without a seam."""
    part = values_NX[start:stop]
    cycle = np.concatenate([part[::-1], part])
    index = np.arange(count) % len(cycle)
    return np.concatenate([values_NX, cycle[index]])


def with_silence(samples_S: np.ndarray, end_s: float, silence_s: float) -> np.ndarray:
    """samples_S (16 kHz) and `silence_s` more of their background; speech ends at `end_s`."""
    step = int(16_000 * STEP_S)
    blocks_NX = samples_S[: len(samples_S) // step * step].reshape(-1, step)
    start, stop = background(np.square(blocks_NX).mean(1), int(end_s / STEP_S))
    return continued(samples_S, start * step, stop * step, int(16_000 * silence_s))


def left_open(
    recordings: Sequence[np.ndarray], cuts: Sequence["MonoCut"], silence_s: float
) -> list[np.ndarray]:
    """Each recording as a microphone would go on: `silence_s` more of its background."""
    pairs = zip(recordings, cuts, strict=True)
    return [with_silence(samples_S, speech_end_s(cut), silence_s) for samples_S, cut in pairs]


@dataclass(frozen=True)
class Recording:
    """A score that remembers: the scores of a turn lie in its hidden state, one a tick from the end of its first frame
    on. A middle of a frame that nobody asked about has 0, which decides nothing.
    """

    score: Score

    def initial(self) -> tuple[Any, tuple[float, ...]]:
        return self.score.initial(), ()

    def __call__(self, encoded_BD: np.ndarray, pause_BD: np.ndarray, hidden: Sequence[tuple]) -> tuple:
        scores, after = self.score(encoded_BD, pause_BD, [state for state, _ in hidden])
        unasked = [(0.0,) * (len(past) % TICKS_PER_FRAME) for _, past in hidden]
        return _kept(scores, after, [(*past, *zero) for (_, past), zero in zip(hidden, unasked, strict=True)])

    def half(self, change_BF: np.ndarray, hidden: Sequence[tuple]) -> tuple:
        scores, after = self.score.half(change_BF, [state for state, _ in hidden])
        return _kept(scores, after, [past for _, past in hidden])


def _kept(scores: Sequence[float], after: Sequence[Any], pasts: Sequence[tuple[float, ...]]) -> tuple:
    # A score of 1 would end even a turn that must not end.
    kept = [(state, (*past, score)) for state, past, score in zip(after, pasts, scores, strict=True)]
    return [min(score, 1 - 1e-6) for score in scores], kept


def run_engine(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    from_s: Sequence[float],
    biases: Sequence[BiasTrie | None],
) -> Iterator[tuple[int, Any, list[Event]]]:
    """(index, last state, events) of every recording, those of like length together."""
    order = sorted(range(len(recordings)), key=lambda index: len(recordings[index]))
    for begin in range(0, len(order), BATCH):
        chosen = order[begin : begin + BATCH]
        states = [engine.stream(biases[i], from_s[i]) for i in chosen]
        states, events = engine.accept_many([recordings[i] for i in chosen], states)
        for i, state, said in zip(chosen, states, events, strict=True):
            state, last = engine.finish(state)
            yield i, state, said + last


def never_ending(engine: Engine, score: Score) -> Engine:
    """The engine with one turn for each recording, whose scores are remembered."""
    config = dataclasses.replace(engine.config, max_turn_s=1e9, idle_s=1e9)
    return Engine(engine.packed, config, Endpointer(Recording(score), NEVER))


def tracks(engine: Engine, recordings: Sequence[np.ndarray], cuts: Sequence["MonoCut"]) -> list[Track]:
    """What the end-pointer's thresholds are chosen on: score and changes of words at every tick."""
    found: dict[int, Track] = {}
    starts = [wake_end_s(cut) for cut in cuts]
    listener = never_ending(engine, engine.endpointer.score)
    for index, state, events in run_engine(listener, recordings, starts, [None] * len(cuts)):
        score_T = np.array(state.turn.hidden[1])
        first = last_tick(int(starts[index] / FRAME_S))
        changed_T = np.zeros(len(score_T), dtype=bool)
        for event in events:
            if not isinstance(event, FinalEnd):
                changed_T[event.time_ms // TICK_MS - 1 - first] = True
        found[index] = Track(score_T, changed_T, 1000 * speech_end_s(cuts[index]) - TICK_MS * first)
    return [found[index] for index in range(len(cuts))]


def outcome(events: Sequence[Event], end_ms: float) -> Outcome:
    """The first turn of a recording as the end-pointer's measures take it."""
    first = [event for event in events if event.turn == 1]
    spoken = [event for event in first if isinstance(event, SpeculativeEnd)]
    final = next((event for event in first if isinstance(event, FinalEnd)), None)
    times_ms = tuple(float(event.time_ms) for event in spoken)
    if final is None:
        return Outcome(end_ms, None, times_ms, None, None)
    ends = [event for event in first if isinstance(event, SpeculativeEnd | Revise)]
    standing = ends[-1] if ends and isinstance(ends[-1], SpeculativeEnd) else None
    adopted_ms = float(standing.time_ms) if standing else None
    right = spoken[0].text == final.text if spoken else None
    return Outcome(end_ms, float(final.time_ms), times_ms, adopted_ms, right)


def words_of(events: Sequence[Event]) -> str:
    """All that was finally said, turn after turn."""
    return " ".join(event.text for event in events if isinstance(event, FinalEnd) and event.text)
