"""Lhotse Shar folders: utterances rendered to features in worker processes, written in order, read back into
memory.

A split is a folder of `cuts.NNNNNN.jsonl.gz`, `features.NNNNNN.tar` (float16) and, where audio is kept,
`recording.NNNNNN.tar` (FLAC). Same utterances, same bytes: the archives carry no time stamps.
Cost: 2.5 ms an utterance besides what its source takes; reading takes 0.25 ms a cut.
"""

import contextlib
import gzip
import hashlib
import io
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import CutSet
from lhotse.audio import AudioSource, Recording
from lhotse.cut import MonoCut
from lhotse.features import Features
from lhotse.shar.writers.tar import TarWriter
from lhotse.supervision import AlignmentItem, SupervisionSegment
from torch import Tensor
from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig, fbank
from pipeline.features.frames import FRAME_SHIFT, SAMPLE_RATE_HZ
from pipeline.processes import die_with_parent

FRAME_SHIFT_S = FRAME_SHIFT / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Utterance:
    """What a source says of an utterance besides its samples. `text` None: no transcript. `phones`: (name, second in
    which it begins), where a corpus knows them.
    """

    id: str
    text: str | None
    speaker: str
    language: str
    custom: dict = field(default_factory=dict)
    phones: list[tuple[str, float]] = field(default_factory=list)


class RejectedUtterance(Exception):
    """A source could not give this utterance's samples; its argument is the line for `rejected.jsonl`."""


@dataclass(frozen=True)
class Record:
    """An utterance as it goes into the shards, and its part of the feature statistics."""

    id: str
    cut_json: str
    data: dict[str, bytes]  # field (features, and recording where audio is kept) -> archive member
    manifests: dict[str, str]  # field -> lhotse's JSON about that member
    num_frames: int
    sums_2F: np.ndarray  # float64: sum and sum of squares of each mel bin


@dataclass
class SplitSummary:
    utterances: list[Utterance] = field(default_factory=list)
    num_frames: int = 0
    sums_2F: np.ndarray | float = 0.0
    rejected: list[dict] = field(default_factory=list)
    digest: str = ""  # of cuts and features

    @property
    def hours(self) -> float:
        return self.num_frames * FRAME_SHIFT_S / 3600

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (F,) of the features, float32."""
        mean_F, square_F = self.sums_2F / self.num_frames
        std_F = np.sqrt(np.maximum(square_F - mean_F**2, 1e-8))
        return torch.from_numpy(mean_F).float(), torch.from_numpy(std_F).float()


Workers = Pool | None
Render = Callable[[object], tuple[Utterance, np.ndarray]]


@contextlib.contextmanager
def open_workers(num_workers: int) -> Iterator[Workers]:
    """Worker processes for `write_split`; None (this process does the work) for fewer than two.

    They are spawned, because neither espeak nor torch's threads survive a fork, and terminated on the way
    out, so that an error or Ctrl-C leaves none behind. Starting them takes some seconds: share them between
    splits.
    """
    if num_workers < 2:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers, initializer=_start_worker) as pool:
        yield pool


def write_split(
    out_dir: Path,
    items: Sequence,
    render: Render,
    *,
    with_audio: bool,
    hide_text: bool = False,
    fbank_config: FbankConfig,
    workers: Workers = None,
    shard_size: int = 1000,
) -> SplitSummary:
    """Render every item and write the folder `out_dir` whole or not at all.

    `render(item) -> (utterance, float32 samples at 16 kHz)` is a picklable function, deterministic in its
    item; it may raise `RejectedUtterance`. `hide_text` moves transcripts to `custom["hidden_text"]`.
    """
    out_dir = Path(out_dir)
    partial_dir = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(partial_dir, ignore_errors=True)
    partial_dir.mkdir(parents=True)
    summary = SplitSummary()
    work = partial(
        _render_record, render=render, with_audio=with_audio, hide_text=hide_text, config=fbank_config
    )
    results = workers.imap(work, items, chunksize=8) if workers else map(work, items)
    progress = tqdm(results, total=len(items), desc=out_dir.name, unit="utt", mininterval=2.0)
    _write_shards(partial_dir, _accepted(progress, summary), with_audio, shard_size)
    shutil.rmtree(out_dir, ignore_errors=True)
    partial_dir.rename(out_dir)
    return summary


def load_cuts(folder: str | Path, with_audio: bool = False) -> CutSet:
    """Read a split into memory: every cut with its features (and recording, if asked for) attached as bytes.

    Raises UserError if the folder is no complete split.
    """
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        return CutSet()  # a split that was asked for with no hours
    fields = {
        "cuts": sorted(folder.glob("cuts.*.jsonl.gz")),
        "features": sorted(folder.glob("features.*.tar")),
    }
    if with_audio:
        fields["recording"] = sorted(folder.glob("recording.*.tar"))
    if not fields["cuts"] or len({len(paths) for paths in fields.values()}) != 1:
        wanted = "cuts, features and recording" if with_audio else "cuts and features"
        raise UserError(f"{folder}: expected equally many {wanted} shards; run `dvc repro prepare`")
    cuts = list(CutSet.from_shar(fields=fields))
    for cut in cuts:
        cut.custom = None  # lhotse notes the shard here, which JSON cannot hold
    return CutSet(cuts)


def load_feature_matrix(cut: MonoCut) -> np.ndarray:
    """Features (N, F) of a cut, float16; for an in-memory cut a view of its bytes, 20 times faster than
    lhotse's way.
    """
    data = cut.features.storage_key
    if cut.features.storage_type != "memory_npy" or not isinstance(data, bytes):
        return cut.load_features()
    shape = cut.features.num_frames, cut.features.num_features
    return np.frombuffer(data, np.float16, offset=len(data) - 2 * shape[0] * shape[1]).reshape(shape)


def _cut_dict(utterance: Utterance, duration_s: float, hide_text: bool) -> dict:
    """lhotse's cut with one supervision over its whole length; its data lie in the archives."""
    custom, text = dict(utterance.custom), utterance.text
    if hide_text and text is not None:
        custom["hidden_text"], text = text, None
    ends_s = [start_s for _, start_s in utterance.phones[1:]] + [duration_s]
    phones = [
        AlignmentItem(name, start_s, round(end_s - start_s, 4))
        for (name, start_s), end_s in zip(utterance.phones, ends_s, strict=False)
    ]
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=duration_s,
        text=text,
        language=utterance.language,
        speaker=utterance.speaker,
        custom=custom,
        alignment={"phone": phones} if phones and text is not None else None,
    )
    cut = MonoCut(utterance.id, start=0.0, duration=duration_s, channel=0)
    # By itself, because a cut copies the items of its supervisions one by one: 0.6 ms.
    return {**cut.to_dict(), "supervisions": [supervision.to_dict()]}


def _features_manifest(name: str, duration_s: float, num_frames: int, num_mel_bins: int) -> Features:
    return Features(
        type="kaldi-fbank",
        num_frames=num_frames,
        num_features=num_mel_bins,
        frame_shift=FRAME_SHIFT_S,
        sampling_rate=SAMPLE_RATE_HZ,
        start=0.0,
        duration=duration_s,
        storage_type="shar",
        storage_path="",
        storage_key="",
        recording_id=name,
        channels=0,
    )


def _start_worker() -> None:
    torch.set_num_threads(1)
    die_with_parent()


def _render_record(item, render: Render, with_audio: bool, hide_text: bool, config: FbankConfig):
    """In a worker: (utterance, Record), or the reason why there is none."""
    try:
        utterance, samples_S = render(item)
    except RejectedUtterance as error:
        return error.args[0], None
    features_NF = fbank(torch.from_numpy(samples_S)[None], config)[0].numpy()
    num_frames = len(features_NF)
    if num_frames == 0:
        return {"id": utterance.id, "reason": "audio shorter than 5 ms"}, None
    duration_s = len(samples_S) / SAMPLE_RATE_HZ
    features = io.BytesIO()
    np.save(features, features_NF.astype(np.float16), allow_pickle=False)
    manifest = _features_manifest(utterance.id, duration_s, num_frames, config.num_mel_bins)
    sums_2F = [features_NF.sum(0, dtype=np.float64), np.square(features_NF).sum(0, dtype=np.float64)]
    record = Record(
        id=utterance.id,
        cut_json=json.dumps(_cut_dict(utterance, duration_s, hide_text), ensure_ascii=False),
        data={"features": features.getvalue()},
        manifests={"features": json.dumps(manifest.to_dict())},
        num_frames=num_frames,
        sums_2F=np.stack(sums_2F),
    )
    if with_audio:
        audio = io.BytesIO()
        soundfile.write(audio, samples_S, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        source = AudioSource(type="shar", channels=[0], source="")
        recording = Recording(utterance.id, [source], SAMPLE_RATE_HZ, len(samples_S), duration_s)
        record.data["recording"] = audio.getvalue()
        record.manifests["recording"] = json.dumps(recording.to_dict())
    return utterance, record


def _accepted(results: Iterable, summary: SplitSummary) -> Iterator[Record]:
    digest = hashlib.blake2b(digest_size=18)  # 36 characters: what MLflow stores of a data set
    for utterance, record in results:
        if record is None:
            summary.rejected.append(utterance)
            continue
        summary.utterances.append(utterance)
        summary.num_frames += record.num_frames
        summary.sums_2F = summary.sums_2F + record.sums_2F
        digest.update(record.cut_json.encode() + record.data["features"])
        yield record
    summary.digest = digest.hexdigest()


def _write_shards(folder: Path, records: Iterable[Record], with_audio: bool, shard_size: int) -> None:
    fields = {"features": "npy", "recording": "flac"} if with_audio else {"features": "npy"}
    writers = {name: TarWriter(f"{folder}/{name}.%06d.tar", shard_size) for name in fields}
    lines: list[str] = []
    shard = 0
    for record in records:
        for name, writer in writers.items():
            writer.write(f"{record.id}.{fields[name]}", io.BytesIO(record.data[name]))
            manifest = record.manifests[name].encode()
            writer.write(f"{record.id}.json", io.BytesIO(manifest), count=False)
        lines.append(record.cut_json)
        if len(lines) == shard_size:
            _write_cuts(folder / f"cuts.{shard:06d}.jsonl.gz", lines)
            lines, shard = [], shard + 1
    if lines:
        _write_cuts(folder / f"cuts.{shard:06d}.jsonl.gz", lines)
    for writer in writers.values():
        writer.close()


def _write_cuts(path: Path, lines: list[str]) -> None:
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
        stream.write(("\n".join(lines) + "\n").encode())
