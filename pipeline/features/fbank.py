"""Log-mel filter-bank features, whole utterances or chunk by chunk with the same numbers.

Kaldi's definition with sherpa-onnx's settings: 16 kHz samples in [-1, 1], 25 ms frames every 10 ms centred on
their 10 ms step (`snip_edges=False`, the edges mirrored), DC removed, pre-emphasis 0.97, povey window, power
spectrum of 512 points, triangular mel filters from 20 Hz to 7600 Hz, natural logarithm, no dither. Global
mean and variance are *not* applied here; the encoder's first layer carries them. Cost: about 0.3 ms for a
second of audio on one core.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.features.frames import FRAME_SHIFT, SAMPLE_RATE_HZ, num_frames

FRAME_LENGTH = 400
LEFT_EDGE = FRAME_LENGTH // 2 - FRAME_SHIFT // 2  # samples of frame 0 that lie before the first sample
FFT_LENGTH = 512
PREEMPHASIS = 0.97
LOW_HZ = 20.0
HIGH_HZ = SAMPLE_RATE_HZ / 2 - 400.0
ROW_BLOCK = 16
FLOOR = 1.1920928955078125e-07  # float32 epsilon, as in Kaldi


@dataclass(frozen=True)
class FbankConfig:
    num_mel_bins: int = 64


@dataclass(frozen=True)
class FbankState:
    """Samples that a coming frame still needs. `started`: the mirrored left edge has been put in front."""

    pending_S: Tensor
    started: bool
    num_samples: int
    num_frames: int


def fbank(samples_BS: Tensor, config: FbankConfig = FbankConfig()) -> Tensor:
    """float32 samples in [-1, 1] (B, S) -> log-mel energies (B, N, F), N = `num_frames(S)`."""
    num_samples = samples_BS.shape[-1]
    count = num_frames(num_samples)
    if count == 0:
        return samples_BS.new_zeros(*samples_BS.shape[:-1], 0, config.num_mel_bins)
    end = (count - 1) * FRAME_SHIFT - LEFT_EDGE + FRAME_LENGTH
    padded_BS = _mirror(samples_BS, LEFT_EDGE, max(0, end - num_samples))
    return _log_mel(padded_BS.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)[..., :count, :], config.num_mel_bins)


def initial_state(config: FbankConfig = FbankConfig()) -> FbankState:
    return FbankState(torch.zeros(0), started=False, num_samples=0, num_frames=0)


def step(
    samples_S: Tensor, state: FbankState, config: FbankConfig = FbankConfig()
) -> tuple[Tensor, FbankState]:
    """Append samples (any number, also none) -> every frame (N, F) that is now complete, and the next
    state.
    """
    pending_S = torch.cat([state.pending_S, samples_S.float()])
    num_samples = state.num_samples + samples_S.numel()
    started = state.started
    if not started and num_samples >= FRAME_LENGTH - LEFT_EDGE:
        pending_S, started = _mirror(pending_S, LEFT_EDGE, 0), True
    count = max(0, (pending_S.numel() - FRAME_LENGTH) // FRAME_SHIFT + 1) if started else 0
    if count == 0:
        return pending_S.new_zeros(0, config.num_mel_bins), FbankState(
            pending_S, started, num_samples, state.num_frames
        )
    features_NF = _log_mel(pending_S.unfold(0, FRAME_LENGTH, FRAME_SHIFT), config.num_mel_bins)
    rest_S = pending_S[count * FRAME_SHIFT :].clone()
    return features_NF, FbankState(rest_S, started, num_samples, state.num_frames + count)


def flush(state: FbankState, config: FbankConfig = FbankConfig()) -> Tensor:
    """The frames (N, F), two at most in a long utterance, that reach past the last sample."""
    if not state.started:
        return fbank(state.pending_S, config)
    count = num_frames(state.num_samples) - state.num_frames
    if count == 0:
        return state.pending_S.new_zeros(0, config.num_mel_bins)
    missing = (count - 1) * FRAME_SHIFT + FRAME_LENGTH - state.pending_S.numel()
    padded_S = _mirror(state.pending_S, 0, max(0, missing))
    return _log_mel(padded_S.unfold(0, FRAME_LENGTH, FRAME_SHIFT)[:count], config.num_mel_bins)


def _mirror(samples_S: Tensor, left: int, right: int) -> Tensor:
    """Extend by reflection that repeats the edge sample (x1 x0 | x0 x1 …), bouncing where the signal is
    short.
    """
    length = samples_S.shape[-1]
    if left <= length and right <= length:
        head, tail = samples_S[..., :left].flip(-1), samples_S[..., length - right :].flip(-1)
        return torch.cat([head, samples_S, tail], dim=-1)
    index = torch.arange(-left, length + right).remainder(2 * length)
    return samples_S[..., torch.minimum(index, 2 * length - 1 - index)]


def _log_mel(frames_NS: Tensor, num_mel_bins: int) -> Tensor:
    """Frames (…, 400) -> (…, F). Whole and chunked features both end here."""
    window_S, mel_JF = _constants(num_mel_bins, frames_NS.device)
    shape = frames_NS.shape[:-1]
    frames_NS = frames_NS.reshape(-1, FRAME_LENGTH)
    count = frames_NS.shape[0]
    # Matrix products round differently for few rows: row blocks of one size make a frame's numbers
    # independent of the chunk it came in.
    windowed_NS = frames_NS.new_zeros(count + -count % ROW_BLOCK, FFT_LENGTH)
    emphasised_NS = windowed_NS[:count, :FRAME_LENGTH]
    frames_NS = frames_NS - frames_NS.mean(dim=-1, keepdim=True)
    torch.sub(frames_NS[:, 1:], frames_NS[:, :-1], alpha=PREEMPHASIS, out=emphasised_NS[:, 1:])
    emphasised_NS[:, 0] = frames_NS[:, 0] * (1.0 - PREEMPHASIS)
    emphasised_NS.mul_(window_S)
    spectrum_NJ = torch.view_as_real(torch.fft.rfft(windowed_NS)).flatten(1)  # J: re, im, re, im, …
    power_GRJ = spectrum_NJ.square_().view(-1, ROW_BLOCK, FFT_LENGTH + 2)
    energies_NF = torch.bmm(power_GRJ, mel_JF.expand(power_GRJ.shape[0], -1, -1)).flatten(0, 1)
    return energies_NF[:count].clamp_min_(FLOOR).log_().view(*shape, num_mel_bins)


@functools.lru_cache(maxsize=8)
def _constants(num_mel_bins: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Povey window (400,) and mel filters (2 · 257, F; every row twice, for |·|² = re² + im²)."""
    phase_S = 2 * math.pi * torch.arange(FRAME_LENGTH, dtype=torch.float64) / (FRAME_LENGTH - 1)
    window_S = (0.5 - 0.5 * torch.cos(phase_S)) ** 0.85
    hertz_K = torch.arange(FFT_LENGTH // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE_HZ / FFT_LENGTH)
    mel_K = 1127.0 * torch.log1p(hertz_K / 700.0)
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (LOW_HZ, HIGH_HZ))
    edges = torch.linspace(low, high, num_mel_bins + 2, dtype=torch.float64)
    left_F, centre_F, right_F = edges[:-2], edges[1:-1], edges[2:]
    rising_KF = (mel_K[:, None] - left_F) / (centre_F - left_F)
    falling_KF = (right_F - mel_K[:, None]) / (right_F - centre_F)
    mel_KF = torch.minimum(rising_KF, falling_KF).clamp_min(0.0)
    return window_S.float().to(device), mel_KF.repeat_interleave(2, dim=0).float().to(device)
