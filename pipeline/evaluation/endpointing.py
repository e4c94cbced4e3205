"""How soon and how rightly the end of speech was noticed, and which thresholds to take.

All times are milliseconds from the start of the utterance; a track must go on in silence for longer than the slowest
final takes. Latency is the final's time less the true end of speech (aligned audio, not the recogniser's tokens, which
come late). A final before the true end is an early cut. Firing times are multiples of 80 ms, and so are gaps; with
utterances of one constant gap the median can miss its aim by 40 ms, so look at the quartiles too.

Shapes: B utterances, T frames, C thresholds.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.decoding.endpointer import FRAME_MS, Decision, DecisionKind, EndpointConfig, initial_state, step
from pipeline.errors import UserError

RESOLUTION = 1e-6  # thresholds are multiples of it, so that six digits in params.yaml are the threshold
NUM_CANDIDATES = 64


@dataclass(frozen=True)
class Track:
    """score_T in [0, 1]; changed_T: the recogniser's words changed in the frame; the true end of speech."""

    score_T: np.ndarray
    changed_T: np.ndarray
    speech_end_ms: float

    def __post_init__(self) -> None:
        if self.score_T.ndim != 1 or self.score_T.shape != self.changed_T.shape:
            raise ValueError(f"score_T {self.score_T.shape} and changed_T {self.changed_T.shape}: must agree")


@dataclass(frozen=True)
class Outcome:
    """What the end-pointer did in the first turn of a track. `final_ms`: None if it never fired.

    `speculative_ms`: every speculation; `adopted_ms`: the one that the final confirmed, or None; `first_was_right`:
    the words at the first speculation were the final's, None without a speculation or a final.
    """

    speech_end_ms: float
    final_ms: float | None
    speculative_ms: tuple[float, ...]
    adopted_ms: float | None
    first_was_right: bool | None

    @property
    def latency_ms(self) -> float | None:
        return None if self.final_ms is None else self.final_ms - self.speech_end_ms


def run(track: Track, config: EndpointConfig) -> Outcome:
    """The state machine over a track, up to its first final."""
    state, versions_T, end_ms = initial_state(), np.cumsum(track.changed_T), track.speech_end_ms
    speculations: list[Decision] = []
    adopted_ms: float | None = None
    for frame, (score, changed) in enumerate(zip(track.score_T, track.changed_T, strict=True)):
        state, decisions = step(state, float(score), frame, bool(changed), config)
        for decision in decisions:
            if decision.kind == DecisionKind.SPECULATIVE_END:
                speculations.append(decision)
                adopted_ms = float(decision.time_ms)
            elif decision.kind == DecisionKind.REVISE:
                adopted_ms = None
            else:
                right = bool(versions_T[speculations[0].frame] == versions_T[frame]) if speculations else None
                return Outcome(end_ms, float(decision.time_ms), _times_ms(speculations), adopted_ms, right)
    return Outcome(end_ms, None, _times_ms(speculations), None, None)


def _times_ms(decisions: Sequence[Decision]) -> tuple[float, ...]:
    return tuple(float(decision.time_ms) for decision in decisions)


def latency_percentiles(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """`ep50_ms`, `ep90_ms`, `ep99_ms` over the finals that cut nobody; empty if there are none."""
    latencies_ms = [latency for o in outcomes if (latency := o.latency_ms) is not None and latency >= 0]
    if not latencies_ms:
        return {}
    return {f"ep{p}_ms": float(np.percentile(latencies_ms, p)) for p in (50, 90, 99)}


def early_cut_rate(outcomes: Sequence[Outcome], tolerance_ms: float = 0.0) -> float:
    """Fraction of all utterances whose final came more than `tolerance_ms` before the true end."""
    cuts = [latency < -tolerance_ms for o in outcomes if (latency := o.latency_ms) is not None]
    return sum(cuts) / max(1, len(outcomes))


def gaps_ms(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Final less speculation, of the utterances whose final confirmed a speculation."""
    return np.array(
        [o.final_ms - o.adopted_ms for o in outcomes if o.final_ms is not None and o.adopted_ms is not None]
    )


def revision_rate(outcomes: Sequence[Outcome]) -> float:
    """Fraction, among finals with a speculation, of first speculations whose words were not the final's."""
    right = [o.first_was_right for o in outcomes if o.first_was_right is not None]
    return 1.0 - sum(right) / len(right) if right else 0.0


def net_saving_ms(revision_rate: float, gap_ms: float, downstream_ms: float) -> float:
    """(1 − r) · min(gap, D): the mean time that speculation saves when what comes after takes D = downstream_ms."""
    return (1.0 - revision_rate) * min(gap_ms, downstream_ms)


def measured_saving_ms(outcomes: Sequence[Outcome], downstream_ms: float) -> float:
    """The mean over all finals of min(gap, D), 0 where no speculation stood: what the formula should give."""
    num_finals = sum(o.final_ms is not None for o in outcomes)
    return float(np.minimum(gaps_ms(outcomes), downstream_ms).sum()) / max(1, num_finals)


def report(tracks: Sequence[Track], config: EndpointConfig, downstream_ms: float) -> dict[str, float]:
    """All of the above, flat. Rates are fractions. A key is absent where nothing fired that it could describe.

    `start50_ms`: median time from the end of speech to the start of the work that was used;
    `early_cut_single`: early cuts of the single end-pointer whose median latency is that, the price of the same speed
    without a second threshold.
    """
    outcomes = [run(track, config) for track in tracks]
    rate, num = revision_rate(outcomes), max(1, len(outcomes))
    result = latency_percentiles(outcomes) | {
        "early_cut_rate": early_cut_rate(outcomes),
        "early_cut_100ms_rate": early_cut_rate(outcomes, 100.0),
        "no_fire_rate": sum(o.final_ms is None for o in outcomes) / num,
        "speculations_per_utterance": sum(len(o.speculative_ms) for o in outcomes) / num,
        "adopted_rate": sum(o.adopted_ms is not None for o in outcomes) / num,
        "revision_rate": rate,
        "measured_saving_ms": measured_saving_ms(outcomes, downstream_ms),
    }
    if len(gaps := gaps_ms(outcomes)):
        low, middle, high = (float(gap) for gap in np.percentile(gaps, [25, 50, 75]))
        result |= {"gap_ms": middle, "gap_ms/q25": low, "gap_ms/q75": high, "gap_iqr_ms": high - low}
        result["net_saving_ms"] = net_saving_ms(rate, middle, downstream_ms)
    starts = [
        (o.final_ms if o.adopted_ms is None else o.adopted_ms) - o.speech_end_ms
        for o in outcomes
        if o.final_ms is not None and o.final_ms >= o.speech_end_ms
    ]
    if starts:
        result["start50_ms"] = float(np.median(starts))
        result["early_cut_single"] = single_early_cut_rate(tracks, result["start50_ms"], config)
    return result


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
    """The threshold below `final` whose median gap comes nearest to `gap_ms`; of equals the highest, as the surest.

    Tried are quantiles of the tracks' scores below `final`. Raises UserError if none gives a confirmed speculation.
    """
    scores = np.concatenate([track.score_T for track in tracks]) if tracks else np.zeros(0)
    scores = np.unique(np.floor(scores[(scores < final) & (scores >= 2 * RESOLUTION)] / RESOLUTION))
    best, best_distance = None, np.inf
    if len(scores):
        places = np.unique(np.linspace(0, len(scores) - 1, NUM_CANDIDATES).round().astype(int))
        for candidate in scores[places][::-1]:
            threshold = round(float(candidate * RESOLUTION), 6)
            outcomes = [run(track, with_thresholds(config, threshold, final)) for track in tracks]
            gaps = gaps_ms(outcomes)
            distance = abs(float(np.median(gaps)) - gap_ms) if len(gaps) else np.inf
            if distance < best_distance:
                best, best_distance = threshold, distance
    if best is None:
        raise UserError(
            f"final: no score below {final} gives a speculation; take a higher one or other tracks"
        )
    return best


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
    threshold_C = np.unique(np.quantile(scores, np.linspace(0, 1, 8 * NUM_CANDIDATES)))
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
    """peak_T: the highest score up to t among frames with words, infinite once a silence has ended the turn."""
    t_T = np.arange(len(track.score_T))
    has_words_T = np.cumsum(track.changed_T) > 0
    quiet_since_T = np.maximum.accumulate(np.where(track.changed_T, t_T, -1))
    silence_ms_T = (t_T - quiet_since_T) * FRAME_MS
    wait_ms = np.inf if config.max_wait_ms is None else config.max_wait_ms
    ended_T = silence_ms_T >= np.where(has_words_T, config.max_silence_ms, wait_ms)
    return np.maximum.accumulate(np.where(ended_T, np.inf, np.where(has_words_T, track.score_T, -np.inf)))


def _early_peak(track: Track, config: EndpointConfig) -> float:
    """A final threshold cuts this track early if and only if it is at most this."""
    num_early = int(np.ceil(track.speech_end_ms / FRAME_MS)) - 1  # frames that end before the speech does
    peak_T = _peaks(track, config)[: max(0, num_early)]
    return float(peak_T[-1]) if len(peak_T) else -np.inf


def _fire_ms(track: Track, threshold_C: np.ndarray, config: EndpointConfig) -> np.ndarray:
    """fire_ms_C: when a single end-pointer fires at each threshold, infinite if never. All thresholds at once."""
    frame_C = np.searchsorted(_peaks(track, config), threshold_C, side="left")
    return np.where(frame_C < len(track.score_T), (frame_C + 1.0) * FRAME_MS, np.inf)
