"""What happens to speech on its way to the microphone: rooms, noise, whispering (16 kHz float32)."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import scipy.fft

from pipeline.features.frames import SAMPLE_RATE_HZ

NOISE_BANK_S = 60
# kind → share of the utterances
NOISE_KINDS = {
    "babble": 0.25,
    "pink": 0.2,
    "fan": 0.15,
    "music": 0.15,
    "hum": 0.1,
    "brown": 0.1,
    "white": 0.05,
}


def rms(samples_S: np.ndarray) -> float:
    """Root mean square; never 0, so that it can be divided by."""
    return float(np.sqrt(np.mean(np.square(samples_S), dtype=np.float64))) + 1e-9


def room_response(rt60_s: float, direct_to_reverberant_db: float, rng: np.random.Generator) -> np.ndarray:
    """A random room: the direct path at sample 0 (times stay as they are), eight early reflections within 30
    ms, and a noise tail that decays by 60 dB in `rt60_s`. The tail is cut at -40 dB.
    """
    length = int(rt60_s * SAMPLE_RATE_HZ * 40 / 60)
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length, dtype=np.float32) * np.exp(time_s * np.float32(-6.908 / rt60_s))
    early = rng.integers(16, 480, 8)
    onset = int(early.min())
    tail[: onset + 32] = 0
    strength = rms(tail[480:]) * np.float32(np.sqrt(length)) * 0.25
    tail[early] += strength * rng.standard_normal(8, dtype=np.float32)
    energy = float(np.sum(np.square(tail))) + 1e-12
    tail *= np.float32(10 ** (-direct_to_reverberant_db / 20) / np.sqrt(energy))
    tail[0] = 1.0
    return tail


def convolve(samples_S: np.ndarray, response: np.ndarray) -> np.ndarray:
    """`samples_S` in the room, cut to its own length."""
    size = scipy.fft.next_fast_len(len(samples_S) + len(response), real=True)
    spectrum = scipy.fft.rfft(samples_S, size) * scipy.fft.rfft(response, size)
    return scipy.fft.irfft(spectrum, size)[: len(samples_S)]


def whisper(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace the voice's excitation by noise: the cepstrally smoothed short-time spectrum (quefrencies below
    the pitch period) shapes white noise; the region of the first formant loses energy and the formants move
    up by 5 to 20 %, as in whispered speech (Morris & Clements 2002; Lin et al. 2023, arXiv 2311.05179).
    """
    size, hop, lifter = 512, 128, 40
    num_frames = len(samples_S) // hop + 4
    padded = np.zeros((num_frames - 1) * hop + size, np.float32)
    padded[size - hop : size - hop + len(samples_S)] = samples_S
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)  # of Hann's
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    log_spectrum = np.log(np.abs(scipy.fft.rfft(frames)) + 1e-6)
    cepstrum = scipy.fft.irfft(log_spectrum)
    cepstrum[:, lifter : size - lifter + 1] = 0
    envelope = np.exp(scipy.fft.rfft(cepstrum).real)
    bins = np.arange(size // 2 + 1)
    shifted = np.minimum((bins / rng.uniform(1.05, 1.2)).astype(int), size // 2)
    frequency_hz = bins * SAMPLE_RATE_HZ / size
    shelf_db = -rng.uniform(8, 16) / (1 + (frequency_hz / 900) ** 4)
    envelope = envelope[:, shifted] * 10 ** (shelf_db / 20)
    noise = rng.standard_normal(len(padded), dtype=np.float32)
    noise_frames = np.lib.stride_tricks.sliding_window_view(noise, size)[::hop] * window
    out_frames = scipy.fft.irfft(scipy.fft.rfft(noise_frames) * envelope, size) * window
    out = np.zeros_like(padded)
    for first in range(size // hop):  # frames `size // hop` apart do not overlap
        part = out_frames[first :: size // hop].reshape(-1)
        out[first * hop : first * hop + len(part)] += part[: len(out) - first * hop]
    return out[size - hop : size - hop + len(samples_S)].astype(np.float32)


def noise_crop(kind: str, group: str, babble: Callable, length: int, position: float) -> np.ndarray:
    """`length` samples of noise of RMS 1 (over the bank) from the bank of `group` (a split, so that test
    noise is not trained on), starting at the fraction `position` of the bank.
    """
    bank = _bank(kind, group, babble)
    start = int(position * (len(bank) - length)) if len(bank) > length else 0
    return bank[start : start + length] if len(bank) >= length else np.resize(bank, length)


@lru_cache(maxsize=32)
def _bank(kind: str, group: str, babble: Callable) -> np.ndarray:
    """A minute of noise, made once per process, the same in every process."""
    rng = np.random.default_rng([list(NOISE_KINDS).index(kind), *group.encode()])
    length = NOISE_BANK_S * SAMPLE_RATE_HZ
    if kind == "babble":
        samples = babble(group)
    elif kind == "hum":
        samples = _hum(length, rng)
    elif kind == "music":
        samples = _music(length, rng)
    else:
        samples = _coloured(length, {"white": 0.0, "pink": 0.5, "brown": 1.0, "fan": 0.75}[kind], rng)
        if kind == "fan":
            samples *= 1 + 0.25 * _wobble(length, 7, 25, rng)
    return (samples / rms(samples)).astype(np.float32)


def _coloured(length: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude spectrum falls with frequency ** -exponent above 40 Hz."""
    spectrum = scipy.fft.rfft(rng.standard_normal(length, dtype=np.float32))
    frequency_hz = np.maximum(np.arange(len(spectrum)) * (SAMPLE_RATE_HZ / length), 40)
    return scipy.fft.irfft(spectrum * (frequency_hz**-exponent).astype(np.float32), length)


def _wobble(length: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    """A tone whose frequency changes every five seconds (a fan's blades)."""
    steps = -(-length // (5 * SAMPLE_RATE_HZ))
    frequency_hz = np.repeat(rng.uniform(low_hz, high_hz, steps), 5 * SAMPLE_RATE_HZ)[:length]
    return np.sin(np.cumsum(frequency_hz) * (2 * np.pi / SAMPLE_RATE_HZ)).astype(np.float32)


def _hum(length: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum of an appliance: harmonics of 50 and 60 Hz, five seconds each, over faint pink noise."""
    samples = 0.15 * _coloured(length, 0.5, rng)
    samples /= rms(samples) / 0.15
    step = 5 * SAMPLE_RATE_HZ
    time_s = np.arange(step, dtype=np.float32) / SAMPLE_RATE_HZ
    for start in range(0, length, step):
        base_hz = (50, 60)[int(rng.integers(2))]
        for harmonic in range(1, 13):
            strength = rng.uniform(0.2, 1) / harmonic**0.7
            phase = np.float32(2 * np.pi * base_hz * harmonic) * time_s + np.float32(rng.uniform(0, 6.28))
            samples[start : start + step] += np.float32(strength) * np.sin(phase)
    return samples


def _music(length: int, rng: np.random.Generator) -> np.ndarray:
    """Chords with harmonics over a beat: four parts from a pentatonic scale, decaying notes, a noise drum."""
    samples = np.zeros(length + 2 * SAMPLE_RATE_HZ, np.float32)
    scale = np.array([0, 2, 4, 7, 9])
    start = 0
    while start < length:
        beat = int(rng.uniform(0.2, 0.45) * SAMPLE_RATE_HZ)
        root_hz = 110 * 2 ** (rng.integers(0, 12) / 12)
        for _ in range(8):
            time_s = np.arange(beat * 2, dtype=np.float32) / SAMPLE_RATE_HZ
            decay = np.exp(-time_s * rng.uniform(2, 8)) * np.minimum(time_s * 200, 1)
            for octave in (0, 1, 1, 2):
                note_hz = root_hz * 2 ** (octave + rng.choice(scale) / 12)
                for harmonic in range(1, 5):
                    note = np.sin(np.float32(2 * np.pi * note_hz * harmonic) * time_s)
                    samples[start : start + len(note)] += decay * note / np.float32(harmonic**1.3)
            fade = np.linspace(1, 0, beat // 4, dtype=np.float32) ** 2
            drum = rng.standard_normal(beat // 4, dtype=np.float32) * fade
            samples[start : start + len(drum)] += drum
            start += beat
            if start >= length:
                break
    return samples[:length]
