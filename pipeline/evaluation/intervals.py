"""Confidence intervals of a WER: bootstrap over speakers, because the errors of one speaker come together.

Bisani & Ney, ICASSP 2004 (bootstrap of WER, paired comparison on the same resamples); Liu & Peng, arXiv
1912.09508 (blocks). Utterance resampling gives intervals that are two to four times too narrow where voices
differ.

Shapes: K blocks (speakers), R replicates; `draws_RK` says how often a replicate drew each block, so that a
replicate's WER is one row of a matrix product.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

REPLICATES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % percentile interval, all in the number's unit."""

    value: float
    low: float
    high: float

    def metrics(self, name: str) -> dict[str, float]:
        """`{name: value, name/low: …, name/high: …}`, the form of metrics.json."""
        return {name: self.value, f"{name}/low": self.low, f"{name}/high": self.high}


def block_names(table: pd.DataFrame) -> pd.Series:
    """What is resampled together: the speaker; the utterance where there are fewer than two speakers."""
    return table["speaker"] if table["speaker"].nunique() > 1 else table["id"]


def draw_blocks(num_blocks: int, seed: int, replicates: int = REPLICATES) -> np.ndarray:
    """draws_RK: each row counts K draws with replacement out of K blocks."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_blocks, np.full(num_blocks, 1.0 / num_blocks), size=replicates)


def block_sums(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(errors_K, words_K) with blocks in sorted order: two tables of one test set share it."""
    sums = table.groupby(block_names(table), sort=True)[["errors", "words"]].sum()
    return sums["errors"].to_numpy(float), sums["words"].to_numpy(float)


def replicate_wers(table: pd.DataFrame, draws_RK: np.ndarray) -> np.ndarray:
    """wer_R: the WER (percent) of every resample."""
    errors_K, words_K = block_sums(table)
    return 100.0 * (draws_RK @ errors_K) / np.maximum(1.0, draws_RK @ words_K)


def percentile_interval(value: float, replicates_R: np.ndarray) -> Interval:
    """Percentile interval; non-finite replicates (a ratio over zero errors) are left out."""
    finite_R = replicates_R[np.isfinite(replicates_R)]
    if len(finite_R) == 0:
        return Interval(value, value, value)
    low, high = np.percentile(finite_R, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(value), float(low), float(high))


def wer_interval(table: pd.DataFrame, seed: int, replicates: int = REPLICATES) -> Interval:
    """WER in percent of one table (see `wer.utterance_table`) with its speaker-blocked interval."""
    draws_RK = draw_blocks(len(block_sums(table)[0]), seed, replicates)
    value = 100.0 * table["errors"].sum() / max(1, table["words"].sum())
    return percentile_interval(value, replicate_wers(table, draws_RK))


def paired_difference(
    new: pd.DataFrame, base: pd.DataFrame, seed: int, replicates: int = REPLICATES
) -> dict[str, Interval]:
    """Two models on the same utterances, compared on the same resamples.

    Returns `absolute` (new − base, points; positive is worse), `relative` (percent of base) and `ratio`
    (new / base). Raises ValueError if the two tables do not hold the same utterances.
    """
    if set(new["id"]) != set(base["id"]) or len(new) != len(base):
        raise ValueError("a paired comparison needs the same utterances on both sides")
    draws_RK = draw_blocks(len(block_sums(base)[0]), seed, replicates)
    new_R, base_R = replicate_wers(new, draws_RK), replicate_wers(base, draws_RK)
    errors_new, errors_base = float(new["errors"].sum()), float(base["errors"].sum())
    words = max(1.0, float(base["words"].sum()))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_R = new_R / base_R
    ratio = errors_new / errors_base if errors_base else 1.0 if errors_new == 0 else float("inf")
    return {
        "absolute": percentile_interval(100.0 * (errors_new - errors_base) / words, new_R - base_R),
        "relative": percentile_interval(100.0 * (ratio - 1.0), 100.0 * (ratio_R - 1.0)),
        "ratio": percentile_interval(ratio, ratio_R),
    }
