"""The device's numbers: end-pointing, lattices and speed of the engine on a test set, as flat metrics.

`endpoint/…` times in ms, rates as fractions; `bias/…` is `bias_metrics.py`'s; `rtf/engine` seconds of one core for a
second of audio. `sent_utterances` is what `reranking.py` measures.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lhotse.cut import MonoCut

from pipeline.decoding.lattice import Arc, Lattice
from pipeline.decoding.lattice_format import write_lattice
from pipeline.decoding.rescoring import Candidate, Weights
from pipeline.evaluation import endpointing, reranking
from pipeline.evaluation.endpointing import Outcome
from pipeline.evaluation.reranking import Utterance
from pipeline.evaluation.streams import never_ending, outcome, run_engine, speech_end_s, wake_end_s
from pipeline.evaluation.wer import normalise
from pipeline.runtime.audio import SAMPLE_RATE_HZ
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine

EMPTY = Lattice(2, 1, (Arc(0, 1, "", 0.0, 0.0, 0, 1),))  # nothing was said
CHUNK = 1_280  # samples: 80 ms


def endpoint_metrics(
    engine: Engine, recordings: Sequence[np.ndarray], cuts: Sequence[MonoCut], downstream_ms: float
) -> dict[str, float]:
    """`endpoint/…` over the first turn of each recording, which goes on in silence behind its words.

    `saving_ms` is the formula's, `saving_measured_ms` the mean over all finals. A key is missing where nothing fired
    that it could describe.
    """
    starts = [wake_end_s(cut) for cut in cuts]
    outcomes: list[Outcome] = []
    for index, _, events in run_engine(engine, recordings, starts, [None] * len(cuts)):
        outcomes.append(outcome(events, 1000 * speech_end_s(cuts[index])))
    num, rate = max(1, len(outcomes)), endpointing.revision_rate(outcomes)
    found = endpointing.latency_percentiles(outcomes) | {
        "early_cut": endpointing.early_cut_rate(outcomes),
        "early_cut_100ms": endpointing.early_cut_rate(outcomes, 100.0),
        "no_fire": sum(o.final_ms is None for o in outcomes) / num,
        "speculations": sum(len(o.speculative_ms) for o in outcomes) / num,
        "revision_rate": rate,
        "saving_measured_ms": endpointing.measured_saving_ms(outcomes, downstream_ms),
    }
    if len(gaps := endpointing.gaps_ms(outcomes)):
        low, middle, high = (float(gap) for gap in np.percentile(gaps, [25, 50, 75]))
        found |= {"gap_ms": middle, "gap_ms/q25": low, "gap_ms/q75": high}
        found["saving_ms"] = endpointing.net_saving_ms(rate, middle, downstream_ms)
    return {f"endpoint/{key}": value for key, value in found.items()}


def sent_utterances(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    words: Sequence[str],
    candidates: Callable[[Lattice], list[Candidate]],
) -> list[Utterance]:
    """One lattice for each recording, its bytes on the wire and the candidates of a second pass; in `cuts`' order.

    `words`: those that both sides know. Where nothing was heard, a lattice of one empty path stands.
    """
    starts, found = [wake_end_s(cut) for cut in cuts], {}
    listener = never_ending(engine, RULE.score)
    for index, _, events in run_engine(listener, recordings, starts, [None] * len(cuts)):
        cut, last = cuts[index], events[-1].lattice if events else None
        lattice = EMPTY if last is None else last
        found[index] = Utterance(
            cut.id,
            cut.supervisions[0].speaker,
            normalise(cut.supervisions[0].text or ""),
            len(recordings[index]) / SAMPLE_RATE_HZ,
            lattice,
            candidates(lattice),
            len(write_lattice(lattice, words)),
        )
    return [found[index] for index in range(len(cuts))]


def second_pass(
    dev: Sequence[Utterance],
    test: Sequence[Utterance],
    audio: Sequence[np.ndarray],
    seed: int,
    replicates: int,
) -> tuple[Weights, dict[str, float]]:
    """Weights chosen on dev, and `lattice/…` of the test set under them; `audio`: of test, for its size as Opus."""
    weights = reranking.choose_weights(dev)
    opus = [size for size in map(reranking.opus_size, audio) if size is not None]
    sizes, durations_s = [each.lattice_bytes for each in test], [each.duration_s for each in test]
    metrics = reranking.reranking_metrics(test, weights, seed, replicates)
    return weights, metrics | reranking.wire_metrics(sizes, durations_s, opus)


def engine_rtf(engine: Engine, recordings: Sequence[np.ndarray]) -> float:
    """Seconds of one thread for a second of audio, one stream at a time in chunks of 80 ms, lattices included."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _stream(engine, recordings[0])
        started = time.process_time()
        for samples_S in recordings:
            _stream(engine, samples_S)
        return (time.process_time() - started) / (sum(map(len, recordings)) / SAMPLE_RATE_HZ)
    finally:
        torch.set_num_threads(threads)


def _stream(engine: Engine, samples_S: np.ndarray) -> None:
    state = engine.stream()
    for begin in range(0, len(samples_S), CHUNK):
        state, _ = engine.accept(samples_S[begin : begin + CHUNK], state)
    engine.finish(state)
