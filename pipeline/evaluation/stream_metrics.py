"""What bias lists do to the engine's words on a test set, as flat metrics.

`bias/<list>/…` percent, false accepts per 1,000 words.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from lhotse.cut import MonoCut

from pipeline.decoding.biasing import BiasTrie
from pipeline.errors import UserError
from pipeline.evaluation import bias_lists
from pipeline.evaluation.bias_lists import BiasList
from pipeline.evaluation.biased_wer import biased_wer, with_biased_counts
from pipeline.evaluation.intervals import wer_interval
from pipeline.evaluation.streams import never_ending, run_engine, wake_end_s, words_of
from pipeline.evaluation.wer import utterance_record, utterance_table
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine
from pipeline.runtime.phrases import bias_of

LIST_SIZES = (0, 10, 100, 1000)


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
