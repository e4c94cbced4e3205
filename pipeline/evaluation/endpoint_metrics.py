"""The end-pointer's numbers on a test set: `endpoint/…`, times in ms, rates as fractions.

The names are those of `endpointing.measures`, and

    endpoint/single_early_cut         early cuts of one threshold alone that is as fast as speculation (`start50_ms`):
                                      what the same speed would cost without a second threshold
"""

from collections.abc import Sequence

import numpy as np
from lhotse.cut import MonoCut

from pipeline.evaluation import endpointing
from pipeline.evaluation.streams import outcome, run_engine, speech_end_s, tracks, wake_end_s
from pipeline.evaluation.thresholds import at_frames, single_early_cut_rate
from pipeline.runtime.engine import Engine


def endpoint_metrics(
    engine: Engine, recordings: Sequence[np.ndarray], cuts: Sequence[MonoCut], downstream_ms: float
) -> dict[str, float]:
    """`endpoint/…` over the first turn of each recording, which goes on in silence behind its words."""
    starts = [wake_end_s(cut) for cut in cuts]
    outcomes = [
        outcome(events, 1000 * speech_end_s(cuts[index]))
        for index, _, events in run_engine(engine, recordings, starts, [None] * len(cuts))
    ]
    found = endpointing.measures(outcomes, downstream_ms)
    if "start50_ms" in found:
        heard, config = (
            [at_frames(track) for track in tracks(engine, recordings, cuts)],
            engine.endpointer.config,
        )
        found["single_early_cut"] = single_early_cut_rate(heard, found["start50_ms"], config)
    return {f"endpoint/{key}": value for key, value in found.items()}
