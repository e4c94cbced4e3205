"""Filter-bank features as a loop over frames in double precision, written from Kaldi's definition."""

import math

import numpy as np


def slow_fbank(samples: np.ndarray, num_mel_bins: int) -> np.ndarray:
    """(S,) -> (N, F); see pipeline/features/fbank.py for the definition."""
    num_samples = len(samples)
    return np.array(
        [_frame(samples, 160 * n - 120, num_mel_bins) for n in range((num_samples + 80) // 160)]
    ).reshape(-1, num_mel_bins)


def _frame(samples: np.ndarray, start: int, num_mel_bins: int) -> list[float]:
    window = []
    for position in range(start, start + 400):
        while not 0 <= position < len(samples):  # mirrored at the edges
            position = -position - 1 if position < 0 else 2 * len(samples) - 1 - position
        window.append(float(samples[position]))
    mean = sum(window) / 400
    window = [value - mean for value in window]
    window = [value - 0.97 * window[max(0, i - 1)] for i, value in enumerate(window)]
    window = [value * (0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85 for i, value in enumerate(window)]
    power = np.abs(np.fft.fft(window, 512)) ** 2
    low, high = _mel(20.0), _mel(7600.0)
    width = (high - low) / (num_mel_bins + 1)
    energies = []
    for bin_index in range(num_mel_bins):
        centre = low + (bin_index + 1) * width
        weights = [max(0.0, 1.0 - abs(_mel(16000 * k / 512) - centre) / width) for k in range(257)]
        energies.append(math.log(max(sum(w * p for w, p in zip(weights, power[:257], strict=True)), 2**-23)))
    return energies


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)
