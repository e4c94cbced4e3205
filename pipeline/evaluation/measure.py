"""From the models' utterance tables to the flat metrics of an evaluation.

Keys: `wer/<model>/<set>` with `/low` and `/high` (percent, 95 %, speaker-blocked),
`substitutions|deletions|insertions/ <model>/<set>`, `words|utterances|speakers/<set>`, and for each step
against the one before and against the teacher `delta/<new>-<base>` (points, positive is worse) and
`relative/<new>-<base>` (percent), paired on the same resamples.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from pipeline.evaluation.inspect import describe
from pipeline.evaluation.intervals import REPLICATES, paired_difference, wer_interval
from pipeline.evaluation.size import bits_per_weight, bytes_fp32, num_parameters, stored_bytes, zeros
from pipeline.features.frames import SAMPLE_RATE_HZ
from pipeline.models.transducer import TRAINING_ONLY
from pipeline.runtime.recognise import transcribe

RTF_UTTERANCES = 40


def subsets(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The named parts of a test set that have words in them: test, test_noisy, and one per language if
    several.
    """
    parts = {"test": table, "test_noisy": table[table["noisy"]]}
    languages = sorted(table["language"].dropna().unique()) if "language" in table else []
    if len(languages) > 1:
        parts |= {f"test_{language}": table[table["language"] == language] for language in languages}
    return {name: part for name, part in parts.items() if part["words"].sum() > 0}


def comparisons(models: Sequence[str]) -> list[tuple[str, str]]:
    """(new, base) pairs: each step against the one before, then against the first (the teacher)."""
    pairs = list(zip(models[1:], models[:-1], strict=True))
    return pairs + [(model, models[0]) for model in models[2:]]


def word_error_metrics(
    tables: Mapping[str, pd.DataFrame], seed: int, replicates: int = REPLICATES
) -> dict[str, float]:
    """All WER keys for {model: utterance table}, models in the order of the graph, the teacher first."""
    metrics: dict[str, float] = {}
    parts_by_model = {model: subsets(table) for model, table in tables.items()}
    for model, parts in parts_by_model.items():
        for name, part in parts.items():
            metrics |= wer_interval(part, seed, replicates).metrics(f"wer/{model}/{name}")
            for column, word in (("S", "substitutions"), ("D", "deletions"), ("I", "insertions")):
                metrics[f"{word}/{model}/{name}"] = int(part[column].sum())
    for name, part in next(iter(parts_by_model.values())).items():
        metrics[f"words/{name}"] = int(part["words"].sum())
        metrics[f"utterances/{name}"] = len(part)
        metrics[f"speakers/{name}"] = int(part["speaker"].nunique())
    for new, base in comparisons(list(tables)):
        found = paired_difference(tables[new], tables[base], seed, replicates)
        metrics |= found["absolute"].metrics(f"delta/{new}-{base}")
        metrics |= found["relative"].metrics(f"relative/{new}-{base}")
    if {"packed", "teacher"} <= set(tables):
        ratio = paired_difference(tables["packed"], tables["teacher"], seed, replicates)["ratio"]
        metrics |= ratio.metrics("ratio/wer_packed_to_teacher")
    return metrics


def size_metrics(model: str, parameters: Mapping) -> dict[str, float]:
    """`params`, `zeros`, `bytes` and `bits_per_weight` of a step that is still a dict of tensors (see
    `size`).
    """
    size_bytes = bytes_fp32(parameters) if model in ("teacher", "student") else stored_bytes(parameters)
    return {
        f"params/{model}": num_parameters(parameters),
        f"zeros/{model}": zeros(parameters),
        f"bytes/{model}": size_bytes,
        f"bits_per_weight/{model}": bits_per_weight(size_bytes, parameters),
    }


def recogniser_tensors(transducer, tensors: Mapping) -> dict:
    """The parameters among a hand-off's tensors that recognition needs, with their `<name>.scale`.

    Heads that only training uses (CTC) stay out on both sides of every ratio, as they stay out of the packed
    file; so do the feature statistics, which are no parameters.
    """
    names = [name for name, _ in transducer.named_parameters() if not name.startswith(TRAINING_ONLY)]
    return {key: tensors[key] for name in names for key in (name, f"{name}.scale") if key in tensors}


def file_metrics(model: str, path: str | Path, teacher_bytes: float) -> dict[str, float]:
    """The same keys for a packed file, counting every byte of it, and its size against the teacher's."""
    description = describe(path)
    return {
        f"params/{model}": description["params"],
        f"zeros/{model}": description["zeros"],
        f"bytes/{model}": description["bytes"],
        f"bits_per_weight/{model}": description["bits_per_weight"],
        f"weights_over_entropy/{model}": description["weights_over_entropy"],
        f"ratio/bytes_{model}_to_teacher": description["bytes"] / teacher_bytes,
    }


def real_time_factor(packed, recordings: Iterable) -> float:
    """Seconds of one thread for each second of audio: features, encoder, search; `recordings` are
    samples_S.
    """
    recordings = list(itertools.islice(recordings, RTF_UTTERANCES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        transcribe(packed, recordings[0])
        start = time.perf_counter()
        for samples_S in recordings:
            transcribe(packed, samples_S)
        return (time.perf_counter() - start) / (sum(len(s) for s in recordings) / SAMPLE_RATE_HZ)
    finally:
        torch.set_num_threads(threads)
