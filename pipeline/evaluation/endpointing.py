"""How soon and how rightly the end of speech was noticed: measures of what the end-pointer did.

All times are milliseconds from the start of the utterance. Latency is the final's time less the true end of speech
(aligned audio, not the recogniser's tokens, which come late). A final before the true end is an early cut. Firing times
are multiples of 40 ms, and so are gaps.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.decoding.endpointer import TICK_MS


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


def grouped_median_ms(gaps_ms: Sequence[float]) -> float:
    """The median of gaps that were rounded to whole ticks, each standing for the 40 ms around it.

    The plain median can only be a multiple of 40 ms, or lie halfway between two; this one moves with every utterance.
    """
    return statistics.median_grouped(gaps_ms, TICK_MS)


def starts_ms(outcomes: Sequence[Outcome]) -> np.ndarray:
    """From the end of speech to the start of the work that was used, of the utterances that were not cut."""
    return np.array(
        [
            (o.final_ms if o.adopted_ms is None else o.adopted_ms) - o.speech_end_ms
            for o in outcomes
            if o.final_ms is not None and o.final_ms >= o.speech_end_ms
        ]
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


def measures(outcomes: Sequence[Outcome], downstream_ms: float) -> dict[str, float]:
    """All of the above, flat. Rates are fractions. A key is absent where nothing fired that it could describe.

    `gap_ms`: the median, `gap_grouped_ms`: see `grouped_median_ms`; `saving_ms` is the formula's for that gap,
    `saving_measured_ms` the mean over all finals; `start50_ms`: the median of `starts_ms`.
    """
    rate, num = revision_rate(outcomes), max(1, len(outcomes))
    found = latency_percentiles(outcomes) | {
        "early_cut": early_cut_rate(outcomes),
        "early_cut_100ms": early_cut_rate(outcomes, 100.0),
        "no_fire": sum(o.final_ms is None for o in outcomes) / num,
        "speculations": sum(len(o.speculative_ms) for o in outcomes) / num,
        "adopted": sum(o.adopted_ms is not None for o in outcomes) / num,
        "revision_rate": rate,
        "saving_measured_ms": measured_saving_ms(outcomes, downstream_ms),
    }
    if len(gaps := gaps_ms(outcomes)):
        low, middle, high = (float(gap) for gap in np.percentile(gaps, [25, 50, 75]))
        found |= {"gap_ms": middle, "gap_ms/q25": low, "gap_ms/q75": high}
        found |= {"gap_grouped_ms": grouped_median_ms(gaps.tolist()), "gap_mean_ms": float(gaps.mean())}
        found["saving_ms"] = net_saving_ms(rate, found["gap_grouped_ms"], downstream_ms)
    if len(starts := starts_ms(outcomes)):
        found["start50_ms"] = float(np.median(starts))
    return found
