"""The device's numbers: end-pointing, biasing and lattices of the engine on a test set, as flat metrics.

`endpoint/…` times in ms, rates as fractions; `bias/<list>/…` percent, false accepts per 1,000 words. `sent_utterances`
is what `reranking.py` measures.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from lhotse.cut import MonoCut

from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lattice import Arc, Lattice
from pipeline.decoding.lattice_format import write_lattice
from pipeline.decoding.rescoring import Candidate, Weights
from pipeline.errors import UserError
from pipeline.evaluation import bias_lists, endpointing, reranking
from pipeline.evaluation.bias_lists import BiasList
from pipeline.evaluation.biased_wer import biased_wer, with_biased_counts
from pipeline.evaluation.endpointing import Outcome
from pipeline.evaluation.intervals import wer_interval
from pipeline.evaluation.reranking import Utterance
from pipeline.evaluation.streams import never_ending, outcome, run_engine, speech_end_s, wake_end_s, words_of
from pipeline.evaluation.wer import normalise, utterance_record, utterance_table
from pipeline.runtime.audio import SAMPLE_RATE_HZ
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine
from pipeline.runtime.phrases import bias_of

EMPTY = Lattice(2, 1, (Arc(0, 1, "", 0.0, 0.0, 0, 1),))  # nothing was said
LIST_SIZES = (0, 10, 100, 1000)


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


def bias_metrics(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    pool: Sequence[str],
    score: float,
    seed: int,
    replicates: int,
) -> dict[str, float]:
    """`bias/<list>/…` for lists of 0 to 1,000 phrases and for lists of other people's; `score` in nats a token.

    Biased words are those of the utterance's own phrases under every list, so that the lists compare. Intervals over
    speakers as `/low` and `/high`.
    """
    metrics: dict[str, float] = {}
    own = [bias_lists.own_phrases(cut.supervisions[0].custom or {}) for cut in cuts]
    for name in (*map(str, LIST_SIZES), "anti"):
        rng = np.random.default_rng(seed)
        lists = [_list(name, cut, phrases, pool, rng) for cut, phrases in zip(cuts, own, strict=True)]
        started = time.process_time()
        biases = [_bias(engine, chosen, score) for chosen in lists]
        swap_ms = 1000 * (time.process_time() - started) / max(1, len(lists))
        table = _decoded(engine, recordings, cuts, biases)
        listed = {cut.id: chosen.words for cut, chosen in zip(cuts, lists, strict=True)}
        table = with_biased_counts(table, listed)
        found = {"wer": wer_interval(table, seed, replicates)} | biased_wer(table, seed, replicates)
        for measure, interval in found.items():
            key = "false_accepts_per_1000" if measure == "false_accepts" else measure
            metrics |= interval.metrics(f"bias/{name}/{key}")
        metrics[f"bias/{name}/swap_ms"] = swap_ms
        metrics[f"bias/{name}/phrases"] = float(np.mean([len(chosen.given) for chosen in lists]))
    return metrics


def _list(
    name: str, cut: MonoCut, own: Sequence[str], pool: Sequence[str], rng: np.random.Generator
) -> BiasList:
    reference = cut.supervisions[0].text or ""
    if name == "anti":
        return bias_lists.anti_list(reference, own, pool, rng)
    return bias_lists.bias_list(reference, own, int(name), pool, rng)


def _bias(engine: Engine, chosen: BiasList, score: float) -> BiasTrie | None:
    if not chosen.given:
        return None
    try:
        return bias_of(chosen.given, engine.packed.tokenizer, score)
    except UserError:  # letters that the tokenizer has never seen: such a phrase cannot be expected either
        spellable = [phrase for phrase in chosen.given if _can_spell(engine, phrase)]
        return bias_of(spellable, engine.packed.tokenizer, score)


def _can_spell(engine: Engine, phrase: str) -> bool:
    tokens = engine.packed.tokenizer.encode(phrase)
    return bool(tokens) and engine.packed.tokenizer.unknown_id not in tokens


def _decoded(
    engine: Engine, recordings: Sequence[np.ndarray], cuts: Sequence[MonoCut], biases: Sequence[Any]
) -> pd.DataFrame:
    starts = [wake_end_s(cut) for cut in cuts]
    heard: Mapping[str, str] = {
        cuts[index].id: words_of(events)
        for index, _, events in run_engine(never_ending(engine, RULE.score), recordings, starts, biases)
    }
    return utterance_table([utterance_record(cut) for cut in cuts], dict(heard), "packed")
