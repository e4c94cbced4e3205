"""Audio files of any rate and channel count to the recogniser's 16 kHz mono samples."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from pipeline.errors import UserError
from pipeline.features.frames import SAMPLE_RATE_HZ

SHORTEST_S = 0.1


def read_audio(path: str | Path) -> np.ndarray:
    """samples_S: float32 at 16 kHz in [-1, 1], channels averaged, resampled by soxr.

    Raises UserError if the file is absent, no audio that libsndfile knows (WAV, FLAC, Ogg, MP3, AIFF …),
    damaged, or shorter than 0.1 s.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        samples_SC, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise UserError(
            f"{path}: not a readable audio file; WAV, FLAC, Ogg and MP3 are understood"
        ) from error
    samples_S = samples_SC.mean(axis=1)
    if len(samples_S) < SHORTEST_S * rate_hz:
        raise UserError(
            f"{path}: {len(samples_S) / rate_hz:.2f} s of audio, at least {SHORTEST_S} s are needed"
        )
    if not np.isfinite(samples_S).all():
        raise UserError(f"{path}: holds samples that are not numbers (NaN or infinite)")
    if rate_hz != SAMPLE_RATE_HZ:
        samples_S = soxr.resample(samples_S, rate_hz, SAMPLE_RATE_HZ)
    return np.ascontiguousarray(samples_S, dtype=np.float32)
