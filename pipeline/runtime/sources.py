"""Where a stream's samples come from: audio files and raw PCM, chunk by chunk, to float32 at 16 kHz and one channel.

A source is an iterator of samples_S; memory does not grow with its length.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from pipeline.errors import UserError
from pipeline.features.frames import SAMPLE_RATE_HZ

RATES_HZ = (4_000, 384_000)
MAX_CHANNELS = 32
CHUNK_MS = (1, 60_000)
BYTES_PER_SAMPLE = 2  # s16le
WAV_MAGIC = b"RIFF"


class ToMono16k:
    """Chunks (S, channels) of one recording at any rate -> the same samples_S however it was cut, channels averaged."""

    def __init__(self, sample_rate_hz: int):
        if not RATES_HZ[0] <= sample_rate_hz <= RATES_HZ[1]:
            raise UserError(
                f"sample_rate_hz: {sample_rate_hz} must lie between {RATES_HZ[0]} and {RATES_HZ[1]}"
            )
        same = sample_rate_hz == SAMPLE_RATE_HZ
        self._resampler = None if same else soxr.ResampleStream(sample_rate_hz, SAMPLE_RATE_HZ, 1, "float32")

    def __call__(self, samples_SC: np.ndarray, last: bool = False) -> np.ndarray:
        """What is complete now (perhaps nothing); the resampler's rest with `last`."""
        samples_S = samples_SC.mean(axis=1, dtype=np.float32)
        return samples_S if self._resampler is None else self._resampler.resample_chunk(samples_S, last)


def file_chunks(path: str | Path, chunk_ms: int) -> Iterator[np.ndarray]:
    """An audio file (WAV, FLAC, Ogg, MP3 …; any rate and channels) in chunks of `chunk_ms`.

    Raises UserError if it is absent, no audio, damaged, or holds samples that are no numbers.
    """
    path = Path(path)
    _check_chunk(chunk_ms)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with soundfile.SoundFile(path) as file:
            convert = ToMono16k(file.samplerate)
            size = max(1, file.samplerate * chunk_ms // 1000)
            for samples_SC in file.blocks(size, dtype="float32", always_2d=True):
                if not np.isfinite(samples_SC).all():
                    raise UserError(f"{path}: holds samples that are not numbers (NaN or infinite)")
                yield convert(samples_SC)
            yield convert(np.zeros((0, file.channels), np.float32), last=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise UserError(
            f"{path}: not a readable audio file; WAV, FLAC, Ogg and MP3 are understood"
        ) from error


def pcm_chunks(
    stream: BinaryIO, chunk_ms: int, sample_rate_hz: int = SAMPLE_RATE_HZ, num_channels: int = 1
) -> Iterator[np.ndarray]:
    """Raw signed 16-bit little-endian PCM, channels interleaved, as it comes: at most `chunk_ms` at a time.

    Raises UserError for an impossible rate or number of channels, a WAV file in the place of PCM, and, after all whole
    samples were given, an end in the middle of one.
    """
    _check_chunk(chunk_ms)
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise UserError(f"channels: {num_channels} must lie between 1 and {MAX_CHANNELS}")
    convert = ToMono16k(sample_rate_hz)
    size = BYTES_PER_SAMPLE * num_channels
    limit = size * max(1, sample_rate_hz * chunk_ms // 1000)
    read = getattr(stream, "read1", stream.read)  # what is there now, instead of waiting for all of it
    rest, head = b"", b""
    while data := read(limit - len(rest)):
        if len(head) < len(WAV_MAGIC):
            head += data[: len(WAV_MAGIC) - len(head)]
            if head == WAV_MAGIC:
                raise UserError(
                    "standard input: holds a WAV file; give its name instead, or PCM without a header"
                )
        data = rest + data
        whole = len(data) // size * size
        rest = data[whole:]
        yield convert(_floats(data[:whole], num_channels))
    yield convert(_floats(b"", num_channels), last=True)
    if rest:
        raise UserError(
            f"standard input: ended inside a sample; {num_channels} channels of s16le are {size} bytes each time"
        )


def in_real_time(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The chunks, each when a microphone would have it."""
    start, num_samples = time.monotonic(), 0
    for samples_S in chunks:
        num_samples += len(samples_S)
        time.sleep(max(0.0, start + num_samples / SAMPLE_RATE_HZ - time.monotonic()))
        yield samples_S


def _floats(data: bytes, num_channels: int) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32).reshape(-1, num_channels) / 32_768.0


def _check_chunk(chunk_ms: int) -> None:
    if not CHUNK_MS[0] <= chunk_ms <= CHUNK_MS[1]:
        raise UserError(f"chunk_ms: {chunk_ms} must lie between {CHUNK_MS[0]} and {CHUNK_MS[1]}")
