"""Real speech from a JSONL manifest: one object per line, `id, audio, text, speaker, language, duration,
split, …`.

NeMo's `audio_filepath, duration, text` is read too. Paths are relative to the manifest's folder. Every line
that cannot be used is rejected with its number and a reason, never silently dropped. Besides the manifest
itself are read, where they lie next to it: `unlabelled.jsonl` (text null: the unlabelled pool) and, for
`noise_copies`, `noise.jsonl`.

Splits. `split` names train, dev, test or unlabelled. Rows without it are divided by a hash of their speaker
(of their id where there are fewer than ten speakers): 80 % train, 10 % dev, 10 % test. If then no test part
exists, each source's dev speakers are dealt out to test and dev, largest first, so that the seconds balance
and no speaker is in both.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

from pipeline.corpus.shards import RejectedUtterance, Utterance
from pipeline.errors import UserError
from pipeline.features.frames import SAMPLE_RATE_HZ

SPLITS = ("train", "unlabelled", "dev", "test")
DURATION_TOLERANCE_S = 0.05
_OWN_KEYS = {
    "id",
    "audio",
    "audio_filepath",
    "text",
    "speaker",
    "language",
    "duration",
    "split",
    "source",
    "licence",
}


@dataclass(frozen=True)
class Row:
    """A usable line. `split` "" until `assign_splits`; `start_s` > 0 for a segment of a longer recording."""

    line: int
    id: str
    audio: Path
    text: str | None
    speaker: str
    language: str
    duration_s: float
    split: str = ""
    source: str = ""
    start_s: float = 0.0
    custom: dict = field(default_factory=dict)


class _BadRow(Exception):
    """The reason why a line cannot be used."""


class _OtherData(Exception):
    """The line is fine but was not asked for; the message says which filter."""


def read_manifest(
    path: str | Path, languages: Collection[str], sources: Collection[str] | None = None
) -> tuple[list[Row], list[dict], Counter]:
    """Usable rows, rejected lines (`file`, `line`, `id`, `reason`) and counts of what the filters left out.

    `sources`: only rows whose `source` is one of these. Audio headers are read, samples are not.
    Raises UserError if the file cannot be read or nothing remains.
    """
    path = Path(path)
    rows, rejected, counts = _read_lines(path, languages, sources)
    unlabelled = path.with_name("unlabelled.jsonl")
    if unlabelled.is_file() and unlabelled != path:
        more_rows, more_rejected, more_counts = _read_lines(
            unlabelled, languages, None, {row.id for row in rows}
        )
        rows, rejected, counts = rows + more_rows, rejected + more_rejected, counts + more_counts
    if not rows:
        first = f"; first: line {rejected[0]['line']}, {rejected[0]['reason']}" if rejected else ""
        raise UserError(
            f"{path}: no usable line ({len(rejected)} rejected, {sum(counts.values())} filtered{first})"
        )
    return assign_splits(rows), rejected, counts


def _read_lines(
    path: Path, languages: Collection[str], sources: Collection[str] | None, known: Collection[str] = ()
) -> tuple[list[Row], list[dict], Counter]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot read this manifest ({error.strerror}); data.manifest names it"
        ) from error
    seen, rows, rejected, counts = set(known), [], [], Counter()
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        entry: object = None
        try:
            entry = json.loads(line)
            row = _parse(entry, number, path.parent, languages, sources)
            if row.id in seen:
                raise _BadRow("duplicate id; the first is kept")
            seen.add(row.id)
            rows.append(row)
        except _OtherData as reason:
            counts[str(reason)] += 1
        except (ValueError, _BadRow) as error:  # bad JSON and bad UTF-8 are ValueErrors
            reason = str(error) if isinstance(error, _BadRow) else f"not valid JSON ({error})"
            name = entry.get("id") if isinstance(entry, dict) else None
            rejected.append({"file": path.name, "line": number, "id": name, "reason": reason})
    return rows, rejected, counts


def _parse(
    entry: object, line: int, folder: Path, languages: Collection[str], sources: Collection[str] | None
) -> Row:
    if not isinstance(entry, dict):
        raise _BadRow("not a JSON object")
    audio = entry.get("audio", entry.get("audio_filepath"))
    if not isinstance(audio, str) or not audio:
        raise _BadRow("no audio (or audio_filepath)")
    name = str(entry.get("id") or Path(audio).with_suffix("").as_posix()).strip("/")
    if not name.isprintable() or Path(name).as_posix() != name:
        raise _BadRow("the id cannot name an archive member; use letters, digits, '-', '_', '.' and '/'")
    source = str(entry.get("source") or "")
    if sources is not None and source not in sources:
        raise _OtherData("other_source")
    language = entry.get("language") or (next(iter(languages)) if len(languages) == 1 else None)
    if language is None:
        raise _BadRow("no language, and data.language names several")
    if language not in languages:
        raise _OtherData("other_language")
    split = entry.get("split") or ""
    if split and split not in SPLITS:
        raise _BadRow(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
    if "text" not in entry:
        raise _BadRow("no text; write null for unlabelled speech")
    text = None
    if entry["text"] is not None:
        text = normalise_text(str(entry["text"]))
        if not text:
            raise _BadRow("empty text")
    elif split in ("dev", "test"):
        raise _BadRow(f"no text in a {split} row")
    else:
        split = "unlabelled"
    path = folder / audio
    duration_s = _check_audio(path, entry.get("duration"))
    custom = {key: value for key, value in entry.items() if key not in _OWN_KEYS and value is not None}
    speaker = str(entry.get("speaker") or name)
    return Row(line, name, path, text, speaker, language, duration_s, split, source, custom=custom)


def _check_audio(path: Path, claimed_s: object) -> float:
    """The file's duration in seconds from its header; _BadRow unless it agrees with the manifest's."""
    if claimed_s is not None:
        if (
            isinstance(claimed_s, bool)
            or not isinstance(claimed_s, int | float)
            or not math.isfinite(claimed_s)
        ):
            raise _BadRow(f"duration {claimed_s!r} is not a number")
        if claimed_s <= 0:
            raise _BadRow(f"duration {claimed_s} s is not positive")
    if not path.is_file():
        raise _BadRow(f"missing file {path.name}")
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise _BadRow(f"unreadable audio {path.name} ({type(error).__name__})") from error
    duration_s = info.frames / info.samplerate
    if info.frames == 0:
        raise _BadRow(f"no samples in {path.name}")
    if claimed_s is not None and abs(duration_s - claimed_s) > DURATION_TOLERANCE_S:
        raise _BadRow(f"duration {claimed_s} s, but {path.name} lasts {duration_s:.3f} s")
    return duration_s


def normalise_text(text: str) -> str:
    """Lower case, composed letters, apostrophes kept, every other mark a space."""
    text = unicodedata.normalize("NFC", text).lower().replace("\u2019", "'")
    text = re.sub(r"[^\w' ]|_", " ", text)
    return " ".join(word for word in text.split() if word.strip("'"))


def assign_splits(rows: list[Row]) -> list[Row]:
    """Every row with a split, by the rules at the top of this file."""
    by_id = len({row.speaker for row in rows}) < 10
    rows = [
        row if row.split else replace(row, split=_hashed_split(row.id if by_id else row.speaker))
        for row in rows
    ]
    if any(row.split == "test" for row in rows):
        return rows
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        if row.split == "dev":
            seconds[row.source, row.speaker] += row.duration_s
    totals: Counter = Counter()
    side: dict[tuple[str, str], str] = {}
    for source, speaker in sorted(seconds, key=lambda key: (key[0], -seconds[key], key[1])):
        side[source, speaker] = "test" if totals[source, "test"] <= totals[source, "dev"] else "dev"
        totals[source, side[source, speaker]] += seconds[source, speaker]
    return [replace(row, split=side[row.source, row.speaker]) if row.split == "dev" else row for row in rows]


def _hashed_split(name: str) -> str:
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 10
    return {0: "dev", 1: "test"}.get(bucket, "train")


def by_split(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for split in SPLITS:
        yield split, [row for row in rows if row.split == split]


def render_row(row: Row) -> tuple[Utterance, np.ndarray]:
    """Mono float32 samples at 16 kHz; another rate is resampled and noted. Raises RejectedUtterance."""
    try:
        with soundfile.SoundFile(row.audio) as file:
            rate = file.samplerate
            file.seek(round(row.start_s * rate))
            wanted = round(row.duration_s * rate)
            samples_SC = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise rejection(row, f"unreadable audio {row.audio.name} ({type(error).__name__})") from error
    if len(samples_SC) < wanted - DURATION_TOLERANCE_S * rate:
        raise rejection(row, f"{row.audio.name} breaks off after {len(samples_SC) / rate:.2f} s")
    samples_S = samples_SC.mean(axis=1)
    if not np.isfinite(samples_S).all():
        raise rejection(row, f"{row.audio.name} has samples that are no numbers")
    if not samples_S.any():
        raise rejection(row, f"{row.audio.name} is all zeros")
    custom = {**row.custom, "source": row.source}
    if rate != SAMPLE_RATE_HZ:
        samples_S = soxr.resample(samples_S, rate, SAMPLE_RATE_HZ)
        custom["resampled_from_hz"] = rate
    return Utterance(row.id, row.text, row.speaker, row.language, custom), samples_S.astype(np.float32)


def rejection(row: Row, reason: str) -> RejectedUtterance:
    return RejectedUtterance({"line": row.line, "id": row.id, "reason": reason})
