"""Noisy copies of real training speech: room responses and background noise of a `noise.jsonl` next to the
manifest.

A copy is drawn from the run's seed and its own id alone, so that a pool is the same however many processes
render it.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from pipeline.corpus.manifest import Row, render_row
from pipeline.corpus.shards import Utterance
from pipeline.errors import UserError
from pipeline.features.frames import SAMPLE_RATE_HZ

MIN_SNR_DB, MAX_SNR_DB = 5.0, 25.0
ROOM_SHARE = 0.5  # of the copies get a room response


@dataclass(frozen=True)
class NoisyRow:
    """A row to be rendered with noise and perhaps a room; `seed` draws where the noise begins."""

    row: Row
    noise: Path
    room: Path | None
    snr_db: float
    seed: int


def noisy_copies(rows: list[Row], manifest: str | Path, num_copies: int, seed: int) -> list[NoisyRow]:
    """`num_copies` noisy versions of every row, ids `<id>-noisy1` and on. Raises UserError without a
    noise.jsonl.
    """
    listing = Path(manifest).with_name("noise.jsonl")
    try:
        entries = [json.loads(line) for line in listing.read_text("utf-8").splitlines() if line.strip()]
        paths = {
            kind: [listing.parent / e["audio"] for e in entries if e["kind"] == kind]
            for kind in ("noise", "rir")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{listing}: data.noise_copies needs this list of noises ({type(error).__name__} reading it)"
        ) from error
    missing = [path for kind in paths.values() for path in kind if not path.is_file()]
    if missing or not paths["noise"]:
        raise UserError(f"{listing}: {f'missing file {missing[0]}' if missing else 'no entry of kind noise'}")
    copies = []
    for row in rows:
        for number in range(1, num_copies + 1):
            name = f"{row.id}-noisy{number}"
            rng = np.random.default_rng([seed, *name.encode()])
            noise = paths["noise"][rng.integers(len(paths["noise"]))]
            room = (
                paths["rir"][rng.integers(len(paths["rir"]))]
                if paths["rir"] and rng.random() < ROOM_SHARE
                else None
            )
            snr_db = round(float(rng.uniform(MIN_SNR_DB, MAX_SNR_DB)), 1)
            copies.append(NoisyRow(replace(row, id=name), noise, room, snr_db, int(rng.integers(2**31))))
    return copies


def render_noisy(copy: NoisyRow) -> tuple[Utterance, np.ndarray]:
    """As `render_row`, then the room, then noise at the drawn SNR; the loudest sample stays below 1."""
    utterance, samples_S = render_row(copy.row)
    if copy.room is not None:
        response = _load(copy.room)
        response = response[
            np.argmax(np.abs(response)) :
        ]  # the direct sound first: the speech keeps its times
        size = 1 << (len(samples_S) + len(response) - 2).bit_length()
        wet_S = np.fft.irfft(np.fft.rfft(samples_S, size) * np.fft.rfft(response, size), size)[
            : len(samples_S)
        ]
        samples_S = wet_S * (_rms(samples_S) / _rms(wet_S))
    noise = _load(copy.noise)
    start = int(np.random.default_rng(copy.seed).integers(len(noise)))
    noise_S = np.take(noise, np.arange(start, start + len(samples_S)), mode="wrap")
    noise_S = noise_S * (_rms(samples_S) / _rms(noise_S) * 10 ** (-copy.snr_db / 20))
    mixed_S = samples_S + noise_S
    mixed_S = mixed_S / max(1.0, float(np.abs(mixed_S).max()) / 0.99)
    custom = {**utterance.custom, "snr_db": copy.snr_db, "noise": copy.noise.stem}
    custom["room"] = copy.room.stem if copy.room else None
    return replace(utterance, custom=custom), mixed_S.astype(np.float32)


@lru_cache(maxsize=64)
def _load(path: Path) -> np.ndarray:
    samples_SC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples_S = samples_SC.mean(axis=1)
    return samples_S if rate == SAMPLE_RATE_HZ else soxr.resample(samples_S, rate, SAMPLE_RATE_HZ)


def _rms(samples_S: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples_S, dtype=np.float64))) + 1e-9)
