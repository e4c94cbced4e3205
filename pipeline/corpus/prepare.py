"""From a source of utterances to `data/prepare`: shards of features, a tokenizer, feature statistics, counts.

Sources: `synthetic` (espeak), `manifest` (JSONL of real speech) and the names in `public.py` (lhotse
recipes). Cost: the default pool (32 hours of synthetic speech) takes about 2.5 minutes on 2 cores.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save

from pipeline.corpus import synthetic
from pipeline.corpus.alignment import PHONES_FILE
from pipeline.corpus.manifest import SPLITS, Row, by_split, read_manifest, render_row
from pipeline.corpus.noise import NoisyRow, noisy_copies, render_noisy
from pipeline.corpus.public import read_public
from pipeline.corpus.shards import SplitSummary, Utterance, open_workers, write_split
from pipeline.corpus.tokenizer import Tokenizer, train_tokenizer
from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig
from pipeline.files import write_atomically

WITH_AUDIO = ("dev", "test")  # for listening, streaming tests and other runtimes


@dataclass(frozen=True)
class DataConfig:
    """`source`: synthetic, manifest, or a corpus name of `public.py`.

    `hours` per split are those of the synthetic source. For real speech: `sources` keeps only manifest rows
    whose `source` is listed, `synthetic_hours` adds that much synthetic speech to train, `noise_copies` that
    many noisy versions of each training row.
    """

    source: str = "synthetic"
    language: str = "en"
    manifest: str | None = None
    corpus_dir: str | None = None
    hours: dict[str, float] = field(
        default_factory=lambda: {"train": 6.0, "unlabelled": 12.0, "dev": 0.35, "test": 1.4}
    )
    sources: list[str] | None = None
    synthetic_hours: float | None = None
    noise_copies: int | None = None

    def __post_init__(self):
        if self.source == "manifest" and self.manifest is None:
            raise UserError("data.manifest is missing: data.source manifest needs the path of a JSONL file")
        if self.source not in ("synthetic", "manifest") and self.corpus_dir is None:
            raise UserError(
                f"data.corpus_dir is missing: data.source {self.source} needs the folder of that corpus"
            )
        for name in ("synthetic_hours", "noise_copies"):
            value = getattr(self, name)
            if value is not None and (value < 0 or self.source == "synthetic"):
                raise UserError(
                    f"data.{name}: {value} is impossible; it must be 0 or more, with real speech only"
                )


@dataclass(frozen=True)
class PrepareConfig:
    vocab_size: int = 128
    num_workers: int = 2
    shard_size: int = 1000


@dataclass(frozen=True)
class Prepared:
    """What `prepare_corpus` made: flat metrics, a digest of each split, the tokenizer's hash."""

    metrics: dict[str, float]
    digests: dict[str, str]
    tokenizer_hash: str


@dataclass(frozen=True)
class Source:
    """Items of each split for `render`; what was refused before rendering, and counts worth reporting."""

    items: dict[str, Sequence]
    rejected: list[dict] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def prepare_corpus(
    data: DataConfig, prepare: PrepareConfig, features: FbankConfig, seed: int, out_dir: str | Path
) -> Prepared:
    """Write the splits, `tokenizer.model`, `phones.txt`, `statistics.safetensors` and `rejected.jsonl` to `out_dir`.

    The metrics are hours, utterances, words, speakers … per split. Raises UserError if no labelled
    utterance remains. The same arguments give the same bytes.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    source = open_source(data, seed)
    summaries: dict[str, SplitSummary] = {}
    with open_workers(prepare.num_workers) as workers:
        for split in SPLITS:
            summaries[split] = write_split(
                out_dir / split,
                source.items.get(split, ()),
                render,
                with_audio=split in WITH_AUDIO,
                hide_text=split == "unlabelled",
                fbank_config=features,
                workers=workers,
                shard_size=prepare.shard_size,
            )
    rejected = source.rejected + [row for summary in summaries.values() for row in summary.rejected]
    write_atomically(out_dir / "rejected.jsonl", "".join(json.dumps(row) + "\n" for row in rejected))
    texts = [utterance.text for utterance in summaries["train"].utterances]
    if not texts:
        raise UserError(
            f"data.source {data.source}: no training utterance remains; {out_dir}/rejected.jsonl says why"
        )
    model = train_tokenizer(texts, prepare.vocab_size)
    write_atomically(out_dir / "tokenizer.model", model)
    mean_F, std_F = summaries["train"].statistics()
    write_atomically(out_dir / "statistics.safetensors", save({"mean_F": mean_F, "std_F": std_F}))
    tokenizer = Tokenizer(model)
    names = sorted({name for utterance in summaries["train"].utterances for name, _ in utterance.phones})
    write_atomically(out_dir / PHONES_FILE, "".join(f"{name}\n" for name in names))
    metrics = {"rejected": len(rejected), **source.counts}
    for split, summary in summaries.items():
        metrics |= {f"{name}/{split}": value for name, value in describe(summary, tokenizer).items()}
    for what in ("names", "speakers", "vocabulary"):
        metrics[f"{what}_unseen/test"] = len(
            _values(summaries["test"], what) - _values(summaries["train"], what)
        )
    digests = {split: summary.digest for split, summary in summaries.items()}
    return Prepared(metrics, digests, tokenizer.hash)


def open_source(data: DataConfig, seed: int) -> Source:
    """The utterances that `data` names, not yet rendered."""
    languages = data.language.split("+")
    if data.source == "synthetic":
        config = synthetic.SyntheticConfig(language=data.language)
        hours = {split: data.hours[split] for split in SPLITS if data.hours[split] > 0}
        return Source({split: synthetic.plan(config, split, hours[split], seed) for split in hours})
    if data.source == "manifest":
        rows, rejected, counts = read_manifest(data.manifest, languages, data.sources)
    else:
        rows, rejected, counts = read_public(data.source, data.corpus_dir, languages)
    items: dict[str, list] = dict(by_split(rows))
    if data.noise_copies:
        items["train"] += noisy_copies(
            items["train"], data.manifest or data.corpus_dir, data.noise_copies, seed
        )
    if data.synthetic_hours:
        config = synthetic.SyntheticConfig(language=data.language)
        items["train"] += synthetic.plan(config, "train", data.synthetic_hours, seed)
    return Source(items, rejected, {f"filtered/{name}": count for name, count in counts.items()})


def render(item: Any) -> tuple[Utterance, np.ndarray]:
    """Samples of an item of any source; called in worker processes."""
    if isinstance(item, Row):
        return render_row(item)
    if isinstance(item, NoisyRow):
        return render_noisy(item)
    samples_S, custom, phones = synthetic.render(item)
    custom["source"] = "synthetic"
    return Utterance(item.id, item.text, item.speaker, item.language, custom, phones), samples_S


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
        "resampled": sum("resampled_from_hz" in utterance.custom for utterance in utterances),
        "intents": len(_values(summary, "intents")),
        "names": len(_values(summary, "names")),
    }


def _values(summary: SplitSummary, what: str) -> set[str]:
    if what == "speakers":
        return {utterance.speaker for utterance in summary.utterances}
    if what == "intents":
        return {
            utterance.custom["intent"] for utterance in summary.utterances if utterance.custom.get("intent")
        }
    if what == "names":
        return {name for utterance in summary.utterances for name in utterance.custom.get("names") or ()}
    return {word for utterance in summary.utterances for word in (utterance.text or "").split()}
