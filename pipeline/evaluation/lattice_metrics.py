"""The lattices of a test set: what the engine made, what arrives on the other side, and what a second pass says of it.

`sent_utterances` is what `reranking.py` measures. Keys beside those of that module:

    lattice/best_path_agreement           share of utterances whose lattice's best path is the search's best
    lattice/reranked_wer_8bit_effect      reranked WER of the lattices as sent, with scores of 8 bits, less that of the
                                          lattices as made; points of WER
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from lhotse.cut import MonoCut

from pipeline.decoding.lattice import Arc, Lattice, best_path
from pipeline.decoding.lattice_format import read_lattice, write_lattice
from pipeline.decoding.rescoring import Candidate, Weights
from pipeline.evaluation import reranking
from pipeline.evaluation.reranking import Utterance
from pipeline.evaluation.streams import never_ending, run_engine, wake_end_s
from pipeline.evaluation.wer import normalise
from pipeline.features.frames import SAMPLE_RATE_HZ
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine

EMPTY = Lattice(2, 1, (Arc(0, 1, "", 0.0, 0.0, 0, 1),))  # nothing was said


def sent_utterances(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    words: Sequence[str],
    candidates: Callable[[Lattice], list[Candidate]],
) -> list[Utterance]:
    """One lattice for each recording as it arrives, its bytes and the candidates of a second pass; in `cuts`' order.

    `words`: those that both sides know. Where nothing was heard, a lattice of one empty path stands.
    """
    starts, found = [wake_end_s(cut) for cut in cuts], {}
    listener = never_ending(engine, RULE.score)
    for index, _, events in run_engine(listener, recordings, starts, [None] * len(cuts)):
        cut, last = cuts[index], events[-1] if events else None
        made = EMPTY if last is None or last.lattice is None else last.lattice
        data = write_lattice(made, words)
        lattice = read_lattice(data, words)
        found[index] = Utterance(
            cut.id,
            cut.supervisions[0].speaker,
            normalise(cut.supervisions[0].text or ""),
            len(recordings[index]) / SAMPLE_RATE_HZ,
            lattice,
            candidates(lattice),
            len(data),
            last.text if last else "",
            made,
        )
    return [found[index] for index in range(len(cuts))]


def second_pass(
    dev: Sequence[Utterance],
    test: Sequence[Utterance],
    audio: Sequence[np.ndarray],
    candidates: Callable[[Lattice], list[Candidate]],
    seed: int,
    replicates: int,
) -> tuple[Weights, dict[str, float]]:
    """Weights chosen on dev, and `lattice/…` of the test set under them; `audio`: of test, for its size as Opus."""
    weights = reranking.choose_weights(dev)
    opus = [size for size in map(reranking.opus_size, audio) if size is not None]
    sizes, durations_s = [each.lattice_bytes for each in test], [each.duration_s for each in test]
    metrics = reranking.reranking_metrics(test, weights, seed, replicates)
    metrics |= reranking.wire_metrics(sizes, durations_s, opus)
    return weights, metrics | fidelity_metrics(test, candidates, weights)


def fidelity_metrics(
    sent: Sequence[Utterance], candidates: Callable[[Lattice], list[Candidate]], weights: Weights
) -> dict[str, float]:
    """Whether determinising, pruning and 8 bits of score leave alone what the search found."""
    agreeing = [" ".join(best_path(each.made).words) == each.best_text for each in sent]
    made = [replace(each, candidates=candidates(each.made)) for each in sent]
    before, after = (reranking.reranked_wer(each, weights) for each in (made, sent))
    return {
        "lattice/best_path_agreement": sum(agreeing) / max(1, len(agreeing)),
        "lattice/reranked_wer_8bit_effect": after - before,
    }
