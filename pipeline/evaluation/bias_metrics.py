"""What lists of phrases do: the bonus chosen on a dev set, `bias/…` of a test set under it.

`bias/<list>/…`: percent, false accepts per 1,000 words; `swap_ms`: CPU time for the list of one utterance, spelling
included; `phrases`: how many it has on average.
"""

import time
from collections.abc import Sequence
from itertools import product

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
from pipeline.runtime.phrases import PhraseBonus, bias_of, can_spell

LISTS = ("0", "10", "100", "1000", "anti")
CHOSEN_ON = ("100", "1000", "anti")
Spoken = tuple[Sequence[np.ndarray], Sequence[MonoCut]]  # recordings, and their cuts
MAX_RISE = 0.1  # percentage points of U-WER, and of the WER under a list of others' phrases


def bias_pass(
    engine: Engine,
    dev: Spoken,
    test: Spoken,
    train: Sequence[MonoCut],
    grid: tuple[Sequence[float], Sequence[float]],
    seed: int,
    replicates: int,
) -> tuple[PhraseBonus, dict[str, float]]:
    """The bonus chosen on dev out of a grid (scores, size costs), and `bias/…` of the test set under it.

    `train`: its words are distractors, beside the names of the set itself.
    """
    bonus = choose_bonus(engine, *dev, bias_lists.pool_of(dev[1], train), *grid, seed)
    pool = bias_lists.pool_of(test[1], train)
    return bonus, bias_metrics(engine, *test, pool, bonus, seed, replicates)


def bias_metrics(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    pool: Sequence[str],
    bonus: PhraseBonus,
    seed: int,
    replicates: int,
) -> dict[str, float]:
    """`bias/<list>/…` for lists of 0 to 1,000 phrases and for lists of other people's, and the bonus.

    Biased words are those of the utterance's own phrases under every list, so that the lists compare. Intervals over
    speakers as `/low` and `/high`.
    """
    metrics = {"bias/score": bonus.score, "bias/size_cost": bonus.size_cost}
    for name in LISTS:
        lists = lists_of(name, cuts, pool, seed)
        words = spellable_words(engine, lists)
        started = time.process_time()
        biases = [
            bias_of(given, engine.packed.tokenizer, bonus, engine.packed.lexicon) if given else None
            for given in words
        ]
        swap_ms = 1000 * (time.process_time() - started) / max(1, len(lists))
        table = _counted(decoded(engine, recordings, cuts, biases), cuts, lists)
        found = {"wer": wer_interval(table, seed, replicates)} | biased_wer(table, seed, replicates)
        for measure, interval in found.items():
            key = "false_accepts_per_1000" if measure == "false_accepts" else measure
            metrics |= interval.metrics(f"bias/{name}/{key}")
        metrics[f"bias/{name}/swap_ms"] = swap_ms
        metrics[f"bias/{name}/phrases"] = float(np.mean([len(chosen.given) for chosen in lists]))
    return metrics


def choose_bonus(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    pool: Sequence[str],
    scores: Sequence[float],
    size_costs: Sequence[float],
    seed: int,
) -> PhraseBonus:
    """Of all pairs of a score and a size cost, the one under which lists of a dev set help most without harm.

    Raises UserError where there is no pair.
    """
    lists = {name: lists_of(name, cuts, pool, seed) for name in CHOSEN_ON}
    plain = decoded(engine, recordings, cuts, [None] * len(cuts))
    before = {name: rates(_counted(plain, cuts, chosen)) for name, chosen in lists.items()}
    given = {name: spellable_words(engine, chosen) for name, chosen in lists.items()}
    found: list[tuple[PhraseBonus, dict[str, dict[str, float]]]] = []
    for score, size_cost in product(scores, size_costs):
        bonus, after = PhraseBonus(score, size_cost), {}
        for name, chosen in lists.items():
            biases: list[BiasTrie | None] = [
                bias_of(each, engine.packed.tokenizer, bonus, engine.packed.lexicon) for each in given[name]
            ]
            after[name] = rates(_counted(decoded(engine, recordings, cuts, biases), cuts, chosen))
        found.append((bonus, after))
    if not found:
        raise UserError(
            "stream.phrase_scores and stream.phrase_size_costs: each must have at least one number"
        )
    return best_bonus(before, found)


def best_bonus(
    before: dict[str, dict[str, float]], found: Sequence[tuple[PhraseBonus, dict[str, dict[str, float]]]]
) -> PhraseBonus:
    """The lowest mean B-WER of the lists with an utterance's phrases, among the bonuses that do no harm: no list may
    raise U-WER, nor the list of others' phrases WER, by more than MAX_RISE over `before`, which is the search without
    a list, its words counted as under that list. Where each does harm, the one that does least.
    """

    def cost(after: dict[str, dict[str, float]]) -> tuple[float, float]:
        rises = [after[name]["u_wer"] - before[name]["u_wer"] for name in before]
        rises.append(after["anti"]["wer"] - before["anti"]["wer"])
        harm = sum(max(0.0, rise - MAX_RISE) for rise in rises)
        return harm, sum(after[name]["b_wer"] for name in before if name != "anti")

    return min(found, key=lambda pair: cost(pair[1]))[0]


def rates(table: pd.DataFrame) -> dict[str, float]:
    """WER, U-WER and B-WER in percent of a table with biased counts."""
    total = {key: int(table[key].sum()) for key in ("words", "u_errors", "b_errors", "u_words", "b_words")}
    return {
        "wer": 100 * (total["u_errors"] + total["b_errors"]) / max(1, total["words"]),
        "u_wer": 100 * total["u_errors"] / max(1, total["u_words"]),
        "b_wer": 100 * total["b_errors"] / max(1, total["b_words"]),
    }


def lists_of(name: str, cuts: Sequence[MonoCut], pool: Sequence[str], seed: int) -> list[BiasList]:
    """The list of each utterance: `name` of LISTS, a size or "anti"."""
    rng, lists = np.random.default_rng(seed), []
    for cut in cuts:
        supervision = cut.supervisions[0]
        reference, own = supervision.text or "", bias_lists.own_phrases(supervision.custom or {})
        if name == "anti":
            lists.append(bias_lists.anti_list(reference, own, pool, rng))
        else:
            lists.append(bias_lists.bias_list(reference, own, int(name), pool, rng))
    return lists


def spellable_words(engine: Engine, lists: Sequence[BiasList]) -> list[list[str]]:
    """What is given to the search: phrases with letters unknown to the tokenizer cannot be expected either."""
    known: dict[str, bool] = {}
    for phrase in {phrase for chosen in lists for phrase in chosen.given}:
        known[phrase] = can_spell(phrase, engine.packed.tokenizer)
    return [[phrase for phrase in chosen.given if known[phrase]] for chosen in lists]


def decoded(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    biases: Sequence[BiasTrie | None],
) -> pd.DataFrame:
    """id, speaker, reference and hypothesis of each recording under its bias."""
    starts = [wake_end_s(cut) for cut in cuts]
    listener = never_ending(engine, RULE.score)
    heard = {
        cuts[index].id: words_of(events)
        for index, _, events in run_engine(listener, recordings, starts, biases)
    }
    return utterance_table([utterance_record(cut) for cut in cuts], heard, "packed")


def _counted(table: pd.DataFrame, cuts: Sequence[MonoCut], lists: Sequence[BiasList]) -> pd.DataFrame:
    listed = {cut.id: chosen.words for cut, chosen in zip(cuts, lists, strict=True)}
    return with_biased_counts(table, listed)
