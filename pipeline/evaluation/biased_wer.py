"""Word errors on the words of a bias list and on all others: B-WER, U-WER, and what the list makes a model invent.

Le et al., arXiv 2104.02194. A substitution or deletion belongs to the side of its reference word, an insertion to the
side of the inserted word. The paper's public scorer labels words by the *rare words of the reference*, so that a
distractor that is inserted counts as U-WER there; here it is in the list, so it counts as B-WER. The substitution of
a common word by a distractor is a U error in both; false accepts count it as what it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from pipeline.evaluation.intervals import REPLICATES, Interval, wer_interval
from pipeline.evaluation.wer import align, normalise

# Measure: (its errors, the words they are divided by), columns of `with_biased_counts`.
MEASURES = {
    "u_wer": ("u_errors", "u_words"),
    "b_wer": ("b_errors", "b_words"),
    "false_accepts": ("false_accepts", "words"),
}


def count_biased_errors(reference: str, hypothesis: str, bias_words: Iterable[str]) -> dict[str, int]:
    """`words`, `u_words`, `u_errors`, `b_words`, `b_errors`, `false_accepts` of one utterance.

    `bias_words` may hold phrases; their words count one by one. All three are normalised. `false_accepts` are the words
    of the hypothesis that are in the list and not in the reference, however they are aligned.
    """
    listed = set(normalise(" ".join(bias_words)).split())
    reference, hypothesis = normalise(reference), normalise(hypothesis)
    spoken = set(reference.split())
    counts = dict.fromkeys(("words", "u_words", "u_errors", "b_words", "b_errors"), 0)
    for left, right in align(reference, hypothesis):
        side = "b" if (right if left is None else left) in listed else "u"
        counts["words"] += left is not None
        counts[f"{side}_words"] += left is not None
        counts[f"{side}_errors"] += left != right
    return counts | {"false_accepts": sum(word in listed - spoken for word in hypothesis.split())}


def with_biased_counts(table: pd.DataFrame, bias_words: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """`table` (id, reference, hypothesis) with the counts of each utterance under its list, `bias_words[id]`.

    Raises KeyError where an utterance has no list: one that was decoded without any has an empty one.
    """
    columns = (table["id"], table["reference"], table["hypothesis"])
    counts = [
        count_biased_errors(reference, hypothesis, bias_words[name])
        for name, reference, hypothesis in zip(*columns, strict=True)
    ]
    return table.assign(**pd.DataFrame(counts, index=table.index))


def as_wer_table(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A table whose `errors` and `words` are those of a measure, as `intervals` takes it (paired comparisons too).

    Its "WER" is percent for `u_wer` and `b_wer`, and false accepts per 100 words for `false_accepts`.
    """
    errors, words = MEASURES[measure]
    return table.assign(errors=table[errors], words=table[words])


def biased_wer(table: pd.DataFrame, seed: int, replicates: int = REPLICATES) -> dict[str, Interval]:
    """U-WER and B-WER in percent, false accepts per 1,000 reference words, with speaker-blocked intervals.

    `table` is of `with_biased_counts` and has `speaker`. A rate over no words is left out: there is no B-WER where no
    reference has a word of its list, as in an anti-context test.
    """
    rates = {
        measure: wer_interval(as_wer_table(table, measure), seed, replicates)
        for measure, (_, words) in MEASURES.items()
        if table[words].sum() > 0
    }
    if "false_accepts" in rates:
        percent = rates["false_accepts"]
        rates["false_accepts"] = replace(
            percent, value=10 * percent.value, low=10 * percent.low, high=10 * percent.high
        )
    return rates
