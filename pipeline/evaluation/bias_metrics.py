"""What lists of phrases do: the bonus chosen on a dev set, `bias/…` of a test set under it.

`bias/<list>/…`: percent, false accepts per 1,000 words; `swap_ms`: CPU time for the list of one utterance, spelling
included; `phrases`: how many it has on average; `anywhere`: the share of them that counts after any word; `cost`: the
engine's CPU time for the recordings, times that without a list.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from pipeline.evaluation.name_kinds import activation_prefixes, words_before
from pipeline.evaluation.streams import never_ending, run_engine, spread, wake_end_s, words_of
from pipeline.evaluation.wer import utterance_record, utterance_table, wer
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine
from pipeline.runtime.phrases import NAME, PREFIXES_NAME, PhraseBonus, bias_of, can_spell

LISTS = ("0", "10", "100", "1000", "anti")
CHOSEN_ON = ("100", "1000", "anti")
TIMED_UTTERANCES, TIMED_BLOCK, TIMED_ROUNDS = 200, 20, 5
Grid = tuple[Sequence[float], Sequence[float], Sequence[float]]  # values of the fields of `PhraseBonus`
Spoken = tuple[Sequence[np.ndarray], Sequence[MonoCut]]  # recordings, and their cuts


def bias_pass(
    engine: Engine,
    dev: Spoken,
    test: Spoken,
    train: Sequence[MonoCut],
    grid: Grid,
    seed: int,
    replicates: int,
) -> tuple[dict[str, Mapping], dict[str, float]]:
    """What `sotto listen` takes for a phrase file, by file name: the bonus chosen on dev out of a grid, and the words
    that come before names of each kind. And `bias/…` of the test set under both.

    `train`: its words are distractors, beside the names of the set itself.
    """
    prefixes = spellable_prefixes(engine, activation_prefixes(train))
    pools = [bias_lists.pool_of(cuts, train) for _, cuts in (dev, test)]
    after = [words_before([*train, *cuts], prefixes) for _, cuts in (dev, test)]
    bonus = choose_bonus(engine, *dev, pools[0], after[0], grid, seed)
    chosen = {NAME: asdict(bonus), PREFIXES_NAME: {kind: sorted(words) for kind, words in prefixes.items()}}
    return chosen, bias_metrics(engine, *test, pools[1], after[1], bonus, seed, replicates)


def bias_metrics(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    pool: Sequence[str],
    after: Mapping[str, frozenset[str]],
    bonus: PhraseBonus,
    seed: int,
    replicates: int,
) -> dict[str, float]:
    """`bias/<list>/…` for lists of 0 to 1,000 phrases and for lists of other people's, and the bonus.

    Biased words are those of the utterance's own phrases under every list, so that the lists compare. Intervals over
    speakers as `/low` and `/high`. `after`: the words after which a phrase counts, where not anywhere.
    """
    metrics = {f"bias/{name}": value for name, value in asdict(bonus).items()}
    for name in LISTS:
        lists = lists_of(name, cuts, pool, seed)
        words = spellable_words(engine, lists)
        known = (engine.packed.tokenizer, bonus, engine.packed.lexicon, after)
        biases = [bias_of(given, *known) if given else None for given in words]
        # One after the other, as on a device: 1,730 lists at once would be timed with the memory that they ask for.
        timed = spread(words, TIMED_UTTERANCES)
        started = time.process_time()
        for given in timed:
            bias_of(given, *known)
        swap_ms = 1000 * (time.process_time() - started) / max(1, len(timed))
        table = _counted(decoded(engine, recordings, cuts, biases), cuts, lists)
        found = {"wer": wer_interval(table, seed, replicates)} | biased_wer(table, seed, replicates)
        for measure, interval in found.items():
            key = "false_accepts_per_1000" if measure == "false_accepts" else measure
            metrics |= interval.metrics(f"bias/{name}/{key}")
        metrics[f"bias/{name}/swap_ms"] = swap_ms
        metrics[f"bias/{name}/phrases"] = float(np.mean([len(chosen.given) for chosen in lists]))
        if any(words):
            anywhere = [phrase not in after for given in words for phrase in given]
            metrics[f"bias/{name}/anywhere"] = float(np.mean(anywhere))
            metrics[f"bias/{name}/cost"] = list_cost(engine, recordings, cuts, biases)
    return metrics


def list_cost(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    biases: Sequence[BiasTrie | None],
) -> float:
    """CPU time of the engine under the biases, times that without.

    Of each block of recordings the fastest of rounds that alternate: what else runs on the machine comes in bursts.
    """
    chosen = spread(range(len(cuts)), TIMED_UTTERANCES)
    seconds = {False: 0.0, True: 0.0}
    for start in range(0, len(chosen), TIMED_BLOCK):
        block = chosen[start : start + TIMED_BLOCK]
        few = [recordings[index] for index in block], [cuts[index] for index in block]
        rounds: dict[bool, list[float]] = {False: [], True: []}
        for biased in (False, True) * TIMED_ROUNDS:
            started = time.process_time()
            decoded(engine, *few, [biases[index] if biased else None for index in block])
            rounds[biased].append(time.process_time() - started)
        for biased, each in rounds.items():
            seconds[biased] += min(each)
    return seconds[True] / seconds[False]


def choose_bonus(
    engine: Engine,
    recordings: Sequence[np.ndarray],
    cuts: Sequence[MonoCut],
    pool: Sequence[str],
    after: Mapping[str, frozenset[str]],
    grid: Grid,
    seed: int,
) -> PhraseBonus:
    """The grid's best bonus on a dev set, `after` as for `bias_metrics`. Raises UserError where the grid has none."""
    lists = {name: lists_of(name, cuts, pool, seed) for name in CHOSEN_ON}
    given = {name: spellable_words(engine, chosen) for name, chosen in lists.items()}
    found: list[tuple[PhraseBonus, list[float]]] = []
    for values in product(*grid):
        bonus, wers = PhraseBonus(*values), []
        for name, chosen in lists.items():
            biases: list[BiasTrie | None] = [
                bias_of(each, engine.packed.tokenizer, bonus, engine.packed.lexicon, after)
                for each in given[name]
            ]
            table = _counted(decoded(engine, recordings, cuts, biases), cuts, chosen)
            wers.append(wer(table))
        found.append((bonus, wers))
    if not found:
        raise UserError(
            "stream.phrase_scores, phrase_unknown_scores, phrase_size_costs: each must have at least one number"
        )
    return best_bonus(found)


def best_bonus(found: Sequence[tuple[PhraseBonus, Sequence[float]]]) -> PhraseBonus:
    """The lowest mean WER over lists with an utterance's phrases and one of others'.

    So help and harm count alike: each for itself is a few words of a small set.
    """
    return min(found, key=lambda pair: float(np.mean(pair[1])))[0]


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


def spellable_prefixes(engine: Engine, prefixes: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Without the words that the recogniser can never write."""
    tokenizer = engine.packed.tokenizer
    return {
        kind: frozenset(word for word in words if can_spell(word, tokenizer))
        for kind, words in prefixes.items()
    }


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
