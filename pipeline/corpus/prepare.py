"""From a source of utterances to `data/prepare`: shards of features, a tokenizer, feature statistics, counts.

Sources: `synthetic` (espeak), `manifest` (JSONL of real speech) and the names in `public.py` (lhotse recipes).
Cost: the default pool (20 hours of synthetic speech) takes about 3 minutes on 2 cores.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from pipeline.corpus import synthetic
from pipeline.corpus.shards import Render, SplitSummary, Utterance, open_workers, write_split
from pipeline.corpus.tokenizer import Tokenizer, train_tokenizer
from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig

SPLITS = ("train", "unlabelled", "dev", "test")
WITH_AUDIO = ("dev", "test")  # for listening, streaming tests and other runtimes


@dataclass(frozen=True)
class DataConfig:
    """`source`: synthetic, manifest, or a corpus name of `public.py`. Hours are per split; synthetic ones only."""

    source: str = "synthetic"
    language: str = "en"
    manifest: str | None = None
    corpus_dir: str | None = None
    hours: dict[str, float] = field(
        default_factory=lambda: {"train": 6.0, "unlabelled": 12.0, "dev": 0.35, "test": 1.4}
    )


@dataclass(frozen=True)
class PrepareConfig:
    vocab_size: int = 128
    num_workers: int = 2
    shard_size: int = 1000


@dataclass(frozen=True)
class Source:
    """Items of each split and the function that renders one; what was refused before rendering."""

    items: dict[str, Sequence]
    render: Render
    rejected: list[dict] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def prepare_corpus(
    data: DataConfig, prepare: PrepareConfig, features: FbankConfig, seed: int, out_dir: str | Path
) -> dict[str, float]:
    """Write the splits, `tokenizer.model`, `statistics.safetensors` and `rejected.jsonl` to `out_dir`.

    Returns flat metrics (hours, utterances, words, speakers … per split). Raises UserError if no labelled utterance
    remains. The same arguments give the same bytes.
    """
    started = time.monotonic()
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    source = open_source(data, seed)
    summaries: dict[str, SplitSummary] = {}
    with open_workers(prepare.num_workers) as workers:
        for split in SPLITS:
            summaries[split] = write_split(
                out_dir / split,
                source.items.get(split, ()),
                source.render,
                with_audio=split in WITH_AUDIO,
                hide_text=split == "unlabelled",
                fbank_config=features,
                workers=workers,
                shard_size=prepare.shard_size,
            )
    rejected = source.rejected + [row for summary in summaries.values() for row in summary.rejected]
    _replace(out_dir / "rejected.jsonl", "".join(json.dumps(row) + "\n" for row in rejected).encode())
    texts = [utterance.text for utterance in summaries["train"].utterances]
    if not texts:
        raise UserError(f"data.source {data.source}: no training utterance remains; {out_dir}/rejected.jsonl says why")
    model = train_tokenizer(texts, prepare.vocab_size)
    _replace(out_dir / "tokenizer.model", model)
    mean_F, std_F = summaries["train"].statistics()
    save_file({"mean_F": mean_F, "std_F": std_F}, out_dir / ".statistics.partial")
    os.replace(out_dir / ".statistics.partial", out_dir / "statistics.safetensors")
    metrics = {"rejected": len(rejected), **source.counts}
    for split, summary in summaries.items():
        metrics |= {f"{name}/{split}": value for name, value in describe(summary, Tokenizer(model)).items()}
    metrics["names_unseen/test"] = _unseen(summaries, "names")
    metrics["speakers_unseen/test"] = _unseen(summaries, "speakers")
    metrics["words_unseen/test"] = _unseen(summaries, "vocabulary")
    metrics["realtime_factor/prepare"] = sum(s.hours for s in summaries.values()) * 3600 / (time.monotonic() - started)
    return metrics


def open_source(data: DataConfig, seed: int) -> Source:
    """The utterances that `data` names, not yet rendered."""
    if data.source == "synthetic":
        return open_synthetic(data, seed)
    raise UserError(f"data.source: {data.source!r} is unknown; use synthetic or manifest")


def open_synthetic(data: DataConfig, seed: int) -> Source:
    config = synthetic.SyntheticConfig(language=data.language)
    items = {split: synthetic.plan(config, split, data.hours[split], seed) for split in SPLITS if data.hours[split] > 0}
    return Source(items, render_synthetic)


def render_synthetic(plan: "synthetic.UtterancePlan") -> tuple[Utterance, np.ndarray]:
    samples_S, custom = synthetic.render(plan)
    return Utterance(plan.id, plan.text, plan.speaker, plan.language, custom), samples_S


def describe(summary: SplitSummary, tokenizer: Tokenizer) -> dict[str, float]:
    """Counts of a split; hidden transcripts are counted too."""
    utterances = summary.utterances
    words = [word for utterance in utterances for word in (utterance.text or "").split()]
    num_tokens = sum(len(tokenizer.encode(utterance.text or "")) for utterance in utterances)
    return {
        "hours": round(summary.hours, 4),
        "utterances": len(utterances),
        "words": len(words),
        "vocabulary": len(set(words)),
        "tokens_per_word": round(num_tokens / max(1, len(words)), 3),
        "speakers": len(_values(summary, "speakers")),
        "intents": len(_values(summary, "intents")),
        "names": len(_values(summary, "names")),
    }


def _values(summary: SplitSummary, what: str) -> set[str]:
    if what == "speakers":
        return {utterance.speaker for utterance in summary.utterances}
    if what == "intents":
        return {utterance.custom["intent"] for utterance in summary.utterances if utterance.custom.get("intent")}
    if what == "names":
        return {name for utterance in summary.utterances for name in utterance.custom.get("names") or ()}
    return {word for utterance in summary.utterances for word in (utterance.text or "").split()}


def _unseen(summaries: dict[str, SplitSummary], what: str) -> int:
    """Values of the test split that labelled training never had."""
    return len(_values(summaries["test"], what) - _values(summaries["train"], what))


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
