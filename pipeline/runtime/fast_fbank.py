"""The filter bank of features/fbank.py, compiled: eight 10 ms frames at a time, one in each lane of a vector.

The innermost axis of every buffer is the frame (lane X of LANES), so that a Fourier transform of eight frames costs
the instructions of one, and a frame's numbers do not depend on its neighbours. Spectrum: 512 real points as 256
complex ones (Stockham's autosorting radix-2 transform, Van Loan 1992, §1.7), then the usual split.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numba import njit

from pipeline.features.frames import FRAME_SHIFT, SAMPLE_RATE_HZ, num_frames

FRAME_LENGTH, FFT_LENGTH = 400, 512
LEFT_EDGE = FRAME_LENGTH // 2 - FRAME_SHIFT // 2
HALF = FFT_LENGTH // 2
LOW_HZ, HIGH_HZ = 20.0, SAMPLE_RATE_HZ / 2 - 400.0
PREEMPHASIS, FLOOR = np.float32(0.97), np.float32(1.1920928955078125e-07)
LANES = 8
ZERO, ONE, TWO, HALVED = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)

compiled = njit(cache=True, fastmath={"contract"}, error_model="numpy")


class FbankState(NamedTuple):
    """Samples that a coming frame still needs. `started`: the mirrored left edge has been put in front."""

    pending_S: np.ndarray
    started: bool = False
    num_samples: int = 0
    num_frames: int = 0


def initial_state() -> FbankState:
    """Before the first sample."""
    return FbankState(np.zeros(0, np.float32))


def step(samples_S: np.ndarray, state: FbankState, num_mel_bins: int) -> tuple[np.ndarray, FbankState]:
    """Append float32 samples (any number, also none) -> every frame (N, F) that is now complete, and the next state."""
    pending_S = np.concatenate([state.pending_S, samples_S], dtype=np.float32)
    num_samples, started = state.num_samples + len(samples_S), state.started
    if not started and num_samples >= FRAME_LENGTH - LEFT_EDGE:
        pending_S, started = mirror(pending_S, LEFT_EDGE, 0), True
    count = max(0, (len(pending_S) - FRAME_LENGTH) // FRAME_SHIFT + 1) if started else 0
    features_NF = log_mel(pending_S, count, num_mel_bins)
    rest_S = pending_S[count * FRAME_SHIFT :].copy()
    return features_NF, FbankState(rest_S, started, num_samples, state.num_frames + count)


def flush(state: FbankState, num_mel_bins: int) -> np.ndarray:
    """The frames (N, F), two at most in a long utterance, that reach past the last sample."""
    count = num_frames(state.num_samples) - state.num_frames
    if count == 0:
        return np.zeros((0, num_mel_bins), np.float32)
    left = 0 if state.started else LEFT_EDGE
    missing = (count - 1) * FRAME_SHIFT + FRAME_LENGTH - left - len(state.pending_S)
    return log_mel(mirror(state.pending_S, left, max(0, missing)), count, num_mel_bins)


def log_mel(samples_S: np.ndarray, count: int, num_mel_bins: int) -> np.ndarray:
    """float32 samples of at least `count` frames (25 ms every 10 ms) -> log-mel energies (count, F)."""
    return _log_mel(samples_S, count, *_constants(num_mel_bins))


def mirror(samples_S: np.ndarray, left: int, right: int) -> np.ndarray:
    """Extend by reflection that repeats the edge sample, bouncing where the signal is short; as features/fbank.py."""
    length = len(samples_S)
    index = np.remainder(np.arange(-left, length + right), 2 * length)
    return samples_S[np.minimum(index, 2 * length - 1 - index)]


@compiled
def _log_mel(samples_S, count, window_S, twiddles_2K, mel_first_F, mel_last_F, mel_FK):
    num_bins = len(mel_first_F)
    features_NF = np.empty((count, num_bins), np.float32)
    real_X, imag_X = np.zeros(HALF * LANES, np.float32), np.zeros(HALF * LANES, np.float32)
    spare_real_X, spare_imag_X = np.empty_like(real_X), np.empty_like(imag_X)
    power_KX, energy_X = np.empty((HALF + 1, LANES), np.float32), np.empty(LANES, np.float32)
    for start in range(0, count, LANES):
        lanes = min(LANES, count - start)
        real_X[:], imag_X[:] = ZERO, ZERO
        for lane in range(lanes):
            first = (start + lane) * FRAME_SHIFT
            _window(samples_S[first : first + FRAME_LENGTH], window_S, real_X, imag_X, lane)
        _transform(real_X, imag_X, spare_real_X, spare_imag_X, twiddles_2K)
        _power(real_X, imag_X, twiddles_2K, power_KX)
        for f in range(num_bins):
            energy_X[:] = ZERO
            for k in range(mel_first_F[f], mel_last_F[f]):
                for lane in range(LANES):
                    energy_X[lane] += mel_FK[f, k] * power_KX[k, lane]
            for lane in range(lanes):
                features_NF[start + lane, f] = np.log(max(energy_X[lane], FLOOR))
    return features_NF


@compiled
def _window(frame_S, window_S, real_X, imag_X, lane):
    """DC removed, pre-emphasised, windowed; even samples to the real, odd ones to the imaginary part."""
    total = 0.0
    for s in range(FRAME_LENGTH):
        total += frame_S[s]
    mean = np.float32(total / FRAME_LENGTH)
    before = frame_S[0] - mean
    for s in range(0, FRAME_LENGTH, 2):
        even, odd = frame_S[s] - mean, frame_S[s + 1] - mean
        real_X[s // 2 * LANES + lane] = (even - PREEMPHASIS * before) * window_S[s]
        imag_X[s // 2 * LANES + lane] = (odd - PREEMPHASIS * even) * window_S[s + 1]
        before = odd


@compiled
def _transform(real_X, imag_X, spare_real_X, spare_imag_X, twiddles_2K):
    """256 complex points in place; eight stages, so that the result lies where the input lay."""
    from_real_X, from_imag_X, to_real_X, to_imag_X = real_X, imag_X, spare_real_X, spare_imag_X
    size, stride = HALF, LANES
    while size > 1:
        half = size // 2
        for p in range(half):
            cosine, sine = twiddles_2K[0, FFT_LENGTH // size * p], twiddles_2K[1, FFT_LENGTH // size * p]
            a_real_X, a_imag_X = from_real_X[stride * p :], from_imag_X[stride * p :]
            b_real_X, b_imag_X = from_real_X[stride * (p + half) :], from_imag_X[stride * (p + half) :]
            c_real_X, c_imag_X = to_real_X[stride * 2 * p :], to_imag_X[stride * 2 * p :]
            d_real_X, d_imag_X = to_real_X[stride * (2 * p + 1) :], to_imag_X[stride * (2 * p + 1) :]
            for j in range(stride):
                real, imag = a_real_X[j] - b_real_X[j], a_imag_X[j] - b_imag_X[j]
                c_real_X[j], c_imag_X[j] = a_real_X[j] + b_real_X[j], a_imag_X[j] + b_imag_X[j]
                d_real_X[j] = real * cosine - imag * sine
                d_imag_X[j] = real * sine + imag * cosine
        from_real_X, to_real_X = to_real_X, from_real_X
        from_imag_X, to_imag_X = to_imag_X, from_imag_X
        size, stride = half, 2 * stride


@compiled
def _power(real_X, imag_X, twiddles_2K, power_KX):
    """|spectrum|² of 512 real points: even part plus twiddled odd part of the 256 complex ones."""
    for k in range(HALF + 1):
        here, there = (k % HALF) * LANES, ((HALF - k) % HALF) * LANES
        cosine, sine = twiddles_2K[0, k], twiddles_2K[1, k]
        for lane in range(LANES):
            a, b = real_X[here + lane], imag_X[here + lane]
            c, d = real_X[there + lane], imag_X[there + lane]
            even_real, even_imag = HALVED * (a + c), HALVED * (b - d)
            odd_real, odd_imag = HALVED * (b + d), HALVED * (c - a)
            real = even_real + odd_real * cosine - odd_imag * sine
            imag = even_imag + odd_real * sine + odd_imag * cosine
            power_KX[k, lane] = real * real + imag * imag


@functools.lru_cache(maxsize=8)
def _constants(num_mel_bins: int) -> tuple[np.ndarray, ...]:
    """Povey window, e^(-2πik/512) as (cos, -sin), and for each filter its first and last bin and its weights."""
    phase_S = 2 * math.pi * np.arange(FRAME_LENGTH) / (FRAME_LENGTH - 1)
    window_S = (0.5 - 0.5 * np.cos(phase_S)) ** 0.85
    angle_K = -2 * math.pi * np.arange(FFT_LENGTH) / FFT_LENGTH
    mel_K = 1127.0 * np.log1p(np.arange(HALF + 1) * (SAMPLE_RATE_HZ / FFT_LENGTH) / 700.0)
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (LOW_HZ, HIGH_HZ))
    edges = np.linspace(low, high, num_mel_bins + 2)
    left_F1, centre_F1, right_F1 = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    mel_FK = np.minimum(
        (mel_K - left_F1) / (centre_F1 - left_F1), (right_F1 - mel_K) / (right_F1 - centre_F1)
    )
    mel_FK = np.maximum(mel_FK, 0.0).astype(np.float32)
    inside_FK = mel_FK > 0
    first_F = np.where(inside_FK.any(1), inside_FK.argmax(1), 0)
    last_F = np.where(inside_FK.any(1), HALF + 1 - inside_FK[:, ::-1].argmax(1), 0)
    twiddles_2K = np.stack([np.cos(angle_K), np.sin(angle_K)]).astype(np.float32)
    return window_S.astype(np.float32), twiddles_2K, first_F, last_F, mel_FK
