"""Which thresholds to take: scores of utterances as tracks, the state machine run over them, and the choice.

A track must go on in silence for longer than the slowest final takes. `evaluation/streams.py` makes tracks with the
engine, `evaluation/endpointing.py` measures what came of them.

Shapes: B utterances, T ticks of 40 ms, C thresholds.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.decoding.endpointer import (
    TICK_MS,
    TICKS_PER_FRAME,
    Decision,
    DecisionKind,
    EndpointConfig,
    initial_state,
    step,
)
from pipeline.errors import UserError
from pipeline.evaluation.endpointing import Outcome, gaps_ms, grouped_median_ms, revision_rate
from pipeline.runtime.turn import BELOW

RESOLUTION = 1e-6  # thresholds are multiples of it, so that six digits in params.yaml are the threshold
NUM_CANDIDATES = 32


@dataclass(frozen=True)
class Track:
    """score_T in [0, 1], 0 where the end-pointer was not asked; changed_T: the recogniser's words changed at the tick;
    the true end of speech. Tick 0 is the end of the first frame that was searched.
    """

    score_T: np.ndarray
    changed_T: np.ndarray
    speech_end_ms: float

    def __post_init__(self) -> None:
        if self.score_T.ndim != 1 or self.score_T.shape != self.changed_T.shape:
            raise ValueError(f"score_T {self.score_T.shape} and changed_T {self.changed_T.shape}: must agree")


def run(track: Track, config: EndpointConfig) -> Outcome:
    """The state machine over a track, up to its first final."""
    state, versions_T, end_ms = initial_state(), np.cumsum(track.changed_T), track.speech_end_ms
    speculations: list[Decision] = []
    adopted_ms: float | None = None
    for tick, (score, changed) in enumerate(zip(track.score_T, track.changed_T, strict=True)):
        state, decisions = step(state, float(score), tick, bool(changed), config)
        for decision in decisions:
            if decision.kind == DecisionKind.SPECULATIVE_END:
                speculations.append(decision)
                adopted_ms = float(decision.time_ms)
            elif decision.kind == DecisionKind.REVISE:
                adopted_ms = None
            else:
                right = bool(versions_T[speculations[0].tick] == versions_T[tick]) if speculations else None
                return Outcome(end_ms, float(decision.time_ms), _times_ms(speculations), adopted_ms, right)
    return Outcome(end_ms, None, _times_ms(speculations), None, None)


def _times_ms(decisions: Sequence[Decision]) -> tuple[float, ...]:
    return tuple(float(decision.time_ms) for decision in decisions)


def choose(
    tracks: Sequence[Track],
    max_early_cut: float,
    gap_ms: float,
    max_revision: float,
    settle_ms: int,
    config: EndpointConfig = EndpointConfig(),
) -> EndpointConfig:
    """The fastest final end that cuts at most that fraction of the tracks early and leaves its speculation, `gap_ms`
    before it, wrong in at most `max_revision` of them; if none does, the one whose speculation is least often wrong.

    A final that comes sooner asks for a speculation before the last word was heard: so the final waits where it must.
    Raises UserError as `choose_final` and `choose_speculative`.
    """
    tried: list[tuple[float, EndpointConfig]] = []
    for num_cut in range(int(max_early_cut * len(tracks) + 1e-9), -1, -1):
        share = num_cut / max(1, len(tracks))
        final = choose_final([at_frames(track) for track in tracks], share, config)
        held = [held_back(track, final, settle_ms) for track in tracks]
        chosen = with_thresholds(config, choose_speculative(held, final, gap_ms, config), final)
        revised = revision_rate([run(track, chosen) for track in held])
        tried.append((revised, chosen))
        if revised <= max_revision:
            return chosen
    return min(tried, key=lambda pair: pair[0])[1]


def at_frames(track: Track) -> Track:
    """The track as the engine ends turns: at the end of a frame (`runtime/turn.py`)."""
    score_T = track.score_T.copy()
    score_T[1::TICKS_PER_FRAME] = 0.0
    return dataclasses.replace(track, score_T=score_T)


def held_back(track: Track, final: float, settle_ms: int) -> Track:
    """The track as the engine speculates: not before the words have settled."""
    t_T = np.arange(len(track.score_T))
    since_T = t_T - np.maximum.accumulate(np.where(track.changed_T, t_T, -settle_ms))
    held_T = (since_T * TICK_MS < settle_ms) & (track.score_T < final)
    score_T = np.where(held_T, 0.0, track.score_T)
    score_T[1::TICKS_PER_FRAME] = np.minimum(score_T[1::TICKS_PER_FRAME], final - BELOW)
    return dataclasses.replace(track, score_T=score_T)


def choose_final(
    tracks: Sequence[Track], max_early_cut: float = 0.02, config: EndpointConfig = EndpointConfig()
) -> float:
    """The lowest, hence fastest, final threshold that cuts at most that fraction of the tracks early.

    Raises UserError if even the threshold 1 cuts more, or if there are no tracks.
    """
    if not tracks:
        raise UserError("tracks: a threshold cannot be chosen on none; give the development set")
    peaks = sorted((_early_peak(track, config) for track in tracks), reverse=True)
    allowed = int(max_early_cut * len(tracks) + 1e-9)
    worst = peaks[allowed] if allowed < len(peaks) else -np.inf
    threshold = RESOLUTION * max(1.0, np.floor(worst / RESOLUTION) + 1.0)
    if threshold > 1:
        raise UserError(
            f"max_early_cut: {max_early_cut} cannot be kept, more tracks than that end by silence or reach a score "
            "of 1 in the midst of speech; allow more or raise max_silence_ms"
        )
    return round(float(threshold), 6)


def choose_speculative(
    tracks: Sequence[Track], final: float, gap_ms: float = 200.0, config: EndpointConfig = EndpointConfig()
) -> float:
    """The threshold below `final` whose grouped median gap comes nearest to `gap_ms`; of equals the highest.

    Grouped, because a plain median of whole ticks stays where it is while half of the utterances change. Tried are
    quantiles of the tracks' scores below `final`, then those between the best one's neighbours. Raises UserError if
    none gives a confirmed speculation.
    """
    scores = np.concatenate([track.score_T for track in tracks]) if tracks else np.zeros(0)
    scores = np.unique(np.floor(scores[(scores < final) & (scores >= 2 * RESOLUTION)] / RESOLUTION))
    best, best_distance, low, high = -1, np.inf, 0, len(scores) - 1
    for _ in range(2 if len(scores) else 0):
        places = np.unique(np.linspace(low, high, NUM_CANDIDATES).round().astype(int)).tolist()
        for place in places[::-1]:
            candidate = with_thresholds(config, _threshold(scores[place]), final)
            gaps = gaps_ms([run(track, candidate) for track in tracks])
            distance = abs(grouped_median_ms(gaps.tolist()) - gap_ms) if len(gaps) else np.inf
            if (distance, -place) < (best_distance, -best):
                best, best_distance = place, distance
        nearest = np.searchsorted(places, best)
        low, high = places[max(0, nearest - 1)], places[min(len(places) - 1, nearest + 1)]
    if best_distance == np.inf:
        raise UserError(
            f"final: no score below {final} gives a speculation; take a higher one or other tracks"
        )
    return _threshold(scores[best])


def _threshold(steps: float) -> float:
    return round(float(steps * RESOLUTION), 6)


def with_thresholds(config: EndpointConfig, speculative: float, final: float) -> EndpointConfig:
    """The config with these two; a hysteresis too wide for so low a threshold shrinks to half of it."""
    hysteresis = min(config.hysteresis, speculative / 2)
    return dataclasses.replace(
        config, speculative_threshold=speculative, final_threshold=final, hysteresis=hysteresis
    )


def single_early_cut_rate(
    tracks: Sequence[Track], latency_ms: float, config: EndpointConfig = EndpointConfig()
) -> float:
    """The lowest early-cut rate of a single end-pointer whose median latency is at most `latency_ms`.

    1.0 if none is so fast. Thresholds: quantiles of all scores. Median over the finals that cut nobody.
    """
    scores = np.unique(np.concatenate([track.score_T for track in tracks]))
    threshold_C = np.unique(np.quantile(scores, np.linspace(0, 1, 16 * NUM_CANDIDATES)))
    end_B = np.array([track.speech_end_ms for track in tracks])
    fired_BC = np.stack([_fire_ms(track, threshold_C, config) for track in tracks])
    rates = [1.0]
    for fired_B in fired_BC.T:
        latency_B = fired_B - end_B
        on_time = latency_B[np.isfinite(latency_B) & (latency_B >= 0)]
        if len(on_time) and np.median(on_time) <= latency_ms:
            rates.append(float((latency_B < 0).mean()))
    return min(rates)


def _peaks(track: Track, config: EndpointConfig) -> np.ndarray:
    """peak_T: the highest score up to t among ticks with words, infinite once a silence has ended the turn."""
    t_T = np.arange(len(track.score_T))
    has_words_T = np.cumsum(track.changed_T) > 0
    quiet_since_T = np.maximum.accumulate(np.where(track.changed_T, t_T, -1))
    silence_ms_T = (t_T - quiet_since_T) * TICK_MS
    wait_ms = np.inf if config.max_wait_ms is None else config.max_wait_ms
    ended_T = silence_ms_T >= np.where(has_words_T, config.max_silence_ms, wait_ms)
    return np.maximum.accumulate(np.where(ended_T, np.inf, np.where(has_words_T, track.score_T, -np.inf)))


def _early_peak(track: Track, config: EndpointConfig) -> float:
    """A final threshold cuts this track early if and only if it is at most this."""
    num_early = int(np.ceil(track.speech_end_ms / TICK_MS)) - 1  # ticks that end before the speech does
    peak_T = _peaks(track, config)[: max(0, num_early)]
    return float(peak_T[-1]) if len(peak_T) else -np.inf


def _fire_ms(track: Track, threshold_C: np.ndarray, config: EndpointConfig) -> np.ndarray:
    """fire_ms_C: when a single end-pointer fires at each threshold, infinite if never. All thresholds at once."""
    tick_C = np.searchsorted(_peaks(track, config), threshold_C, side="left")
    return np.where(tick_C < len(track.score_T), (tick_C + 1.0) * TICK_MS, np.inf)
