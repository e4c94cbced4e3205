"""What the second pass is worth and what its lattices cost: WER before and after, bytes on the wire.

The weights are chosen on the dev set (`choose_weights`) and used on the test set as they are. Keys, with `/low` and
`/high` where there is an interval (95 %, speakers resampled):

    lattice/one_best_wer, lattice/reranked_wer, lattice/oracle_wer      percent
    lattice/werr                      percent of the errors that reranking removes, paired on the same resamples
    lattice/bytes_per_s, lattice/ratio_pcm, lattice/ratio_opus, lattice/ratio_opus_32k, lattice/ratio_opus_measured

Ratios are bytes of audio by bytes of lattice: 16-bit PCM at 16 kHz, and Opus at 24 (and 32) kb/s of the same audio.

Shapes: B utterances, K candidates of the longest list.
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import soundfile

from pipeline.decoding.lattice import Lattice
from pipeline.decoding.oracle import oracle
from pipeline.decoding.rescoring import Candidate, Weights, rank
from pipeline.evaluation.intervals import REPLICATES, Interval, paired_difference, wer_interval
from pipeline.evaluation.wer import count_errors, normalise, utterance_table
from pipeline.features.frames import SAMPLE_RATE_HZ

PCM_BYTES_PER_S = 2 * SAMPLE_RATE_HZ
OPUS_BYTES_PER_S, OPUS_HIGH_BYTES_PER_S = 3_000, 4_000  # 24 and 32 kb/s
GRID = {
    "language_model": np.linspace(0.0, 1.5, 16),
    "internal": np.linspace(0.0, 1.0, 11),
    "per_word": np.linspace(-2.0, 3.0, 11),
    "grammar": np.linspace(0.0, 1.0, 5),
}


@dataclass(frozen=True)
class Utterance:
    """What was said, by whom, what the device found and sent. `candidates`: of `lattice`, see `rescoring.candidates`.

    `lattice`: as it arrived, with scores of 8 bits; `made`: as the device made it; `best_text`: its search's best.
    """

    id: str
    speaker: str
    reference: str
    duration_s: float
    lattice: Lattice
    candidates: Sequence[Candidate]
    lattice_bytes: int
    best_text: str
    made: Lattice


@dataclass(frozen=True)
class Lists:
    """Scores and word errors of every candidate; where a list is shorter, its first pass is minus infinity."""

    first_pass_BK: np.ndarray
    language_model_BK: np.ndarray
    internal_BK: np.ndarray
    words_BK: np.ndarray
    grammar_BK: np.ndarray
    errors_BK: np.ndarray

    def num_errors(self, weights: Weights) -> int:
        """Word errors of the best candidates under these weights."""
        score_BK = (
            self.first_pass_BK
            + weights.language_model * self.language_model_BK
            - weights.internal * self.internal_BK
            + weights.per_word * self.words_BK
            - weights.grammar * self.grammar_BK
        )
        best_B1 = score_BK.argmax(1)[:, None]
        return int(np.take_along_axis(self.errors_BK, best_B1, 1).sum())


def lists_of(utterances: Sequence[Utterance]) -> Lists:
    """The candidates of utterances as arrays."""
    longest = max(len(each.candidates) for each in utterances)
    table_6BK = np.zeros((6, len(utterances), longest))
    table_6BK[0] = -np.inf
    for b, utterance in enumerate(utterances):
        for k, each in enumerate(utterance.candidates):
            errors = _num_errors(utterance.reference, each.text)
            scores = each.first_pass, each.language_model, each.internal, len(each.words), each.grammar
            table_6BK[:, b, k] = *scores, errors
    return Lists(*table_6BK)


def choose_weights(dev: Sequence[Utterance]) -> Weights:
    """The weights of GRID with the fewest word errors on a dev set; of equals the smallest weights."""
    lists = lists_of(dev)
    grid = [Weights(*map(float, point)) for point in itertools.product(*GRID.values())]
    return min(grid, key=lambda weights: (lists.num_errors(weights), *_sizes(weights)))


def reranked_wer(utterances: Sequence[Utterance], weights: Weights) -> float:
    """WER in percent of the best candidates under these weights."""
    num_words = sum(len(each.reference.split()) for each in utterances)
    return 100.0 * lists_of(utterances).num_errors(weights) / max(1, num_words)


def reranking_metrics(
    test: Sequence[Utterance], weights: Weights, seed: int, replicates: int = REPLICATES
) -> dict[str, float]:
    """WER of the lattices' best paths, of the reranked ones and of the best that they hold, with intervals."""
    tables = utterance_tables(test, weights)
    metrics: dict[str, float] = {}
    for name, table in tables.items():
        metrics |= wer_interval(table, seed, replicates).metrics(f"lattice/{name}_wer")
    relative = paired_difference(tables["reranked"], tables["one_best"], seed, replicates)["relative"]
    removed = Interval(-relative.value, -relative.high, -relative.low)
    return metrics | removed.metrics("lattice/werr")


def utterance_tables(test: Sequence[Utterance], weights: Weights) -> dict[str, pd.DataFrame]:
    """`one_best`, `reranked` and `oracle`: a table each, as `intervals` takes it, one row per utterance."""
    heard = {
        "one_best": {each.id: each.candidates[0].text for each in test},
        "reranked": {each.id: rank(each.candidates, weights)[0].text for each in test},
        "oracle": {each.id: _oracle_text(each) for each in test},
    }
    records = [_record(each) for each in test]
    return {name: utterance_table(records, texts, name) for name, texts in heard.items()}


def wire_metrics(
    lattice_bytes: Sequence[int], durations_s: Sequence[float], opus_bytes: Sequence[int] = ()
) -> dict[str, float]:
    """Bytes of lattices against those of the same audio; `opus_bytes`: as measured with an encoder, if there is one."""
    sent, duration_s = sum(lattice_bytes), sum(durations_s)
    metrics = {
        "lattice/bytes_per_s": sent / duration_s,
        "lattice/ratio_pcm": PCM_BYTES_PER_S * duration_s / sent,
        "lattice/ratio_opus": OPUS_BYTES_PER_S * duration_s / sent,
        "lattice/ratio_opus_32k": OPUS_HIGH_BYTES_PER_S * duration_s / sent,
    }
    return metrics | ({"lattice/ratio_opus_measured": sum(opus_bytes) / sent} if opus_bytes else {})


def opus_size(samples_S: np.ndarray) -> int | None:
    """Bytes of 16 kHz mono samples as Ogg Opus at libsndfile's own bit rate; None where it cannot write Opus."""
    if "OPUS" not in soundfile.available_subtypes("OGG"):
        return None
    file = io.BytesIO()
    soundfile.write(file, samples_S, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    return len(file.getvalue())


def _oracle_text(utterance: Utterance) -> str:
    found = oracle(utterance.lattice, normalise(utterance.reference).split())
    return " ".join(arc.word for arc in found.arcs if arc.word)


def _record(utterance: Utterance) -> Mapping[str, object]:
    conditions = {"snr_db": None, "interferer_sir_db": None}
    return {"id": utterance.id, "speaker": utterance.speaker, "reference": utterance.reference, **conditions}


def _num_errors(reference: str, hypothesis: str) -> int:
    counts = count_errors(reference, hypothesis)
    return counts["S"] + counts["D"] + counts["I"]


def _sizes(weights: Weights) -> tuple[float, ...]:
    return weights.language_model, weights.internal, abs(weights.per_word), weights.grammar
