"""Another telling of the same recordings: tempo, vocal tract, channel and the place of the frames change a little.

Unlike SpecAugment it hides nothing, so that a model which hears every recording a few times only does not learn
slower, and it does not learn recordings by heart. Tempo as in Ko et al. 2015 (here on features, which keeps the
pitch), vocal tract length as in Jaitly & Hinton 2013, on log-mel features. Cost: 10 ms for a batch of 90 s.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.features.fbank import FLOOR, HIGH_HZ, LOW_HZ
from pipeline.features.frames import FEATURES_PER_FRAME

FEATURES_PER_PHONE = 2  # 10 ms features in a 20 ms phone label
CHANNEL_RIPPLES = 5
UNKNOWN_PHONE = -1


@dataclass(frozen=True)
class PerturbConfig:
    """`tempo`: at most this much slower or faster (0.1: 10 %), with the frames beginning up to 70 ms later.
    `vocal_tract`: the same of frequencies. `channel`: standard deviation in nats of level and of each of five
    cosines over the mel axis (the k-th: divided by k). `without_wake_word`: share of the utterances with a wake word
    that are heard from its end on. `wrong_history`: share of the labels that the predictor is told wrongly. All 0:
    nothing is changed.
    """

    tempo: float = 0.0
    vocal_tract: float = 0.0
    channel: float = 0.0
    without_wake_word: float = 0.0
    wrong_history: float = 0.0

    def __post_init__(self) -> None:
        for name, limit in (
            ("tempo", 0.5),
            ("vocal_tract", 0.5),
            ("channel", 3.0),
            ("without_wake_word", 1.0),
            ("wrong_history", 1.0),
        ):
            if not 0.0 <= getattr(self, name) <= limit:
                raise UserError(f"perturb.{name}: {getattr(self, name)} must lie between 0 and {limit}")


class Told(NamedTuple):
    """What perturbing changes of a batch: features (B, N, F), their lengths, the frames in which the wake words end,
    and the phones (B, M) from there on.
    """

    features_BNF: Tensor
    feature_lengths_B: Tensor
    start_frames_B: Tensor
    phones_BM: Tensor


def perturb(
    told: Told, token_lengths_B: Tensor, config: PerturbConfig, generator: torch.Generator
) -> tuple[Told, Tensor]:
    """The batch told anew, and for each of its frames (B, T) the one of the recording in which its middle lies, both
    counted from the end of the wake word: what is known of a frame moves with it.

    An utterance that would have fewer frames than tokens keeps its time line. `generator` lives on the CPU: the same
    seed draws the same on every device.
    """
    features_BNF, lengths_B, start_frames_B, phones_BM = told
    device = features_BNF.device
    batch, _, num_bins = features_BNF.shape
    draws_5B = torch.rand(5, batch, generator=generator).to(device)
    ripples_BK = torch.randn(batch, CHANNEL_RIPPLES + 1, generator=generator).to(device)

    tempo_B = 1.0 + config.tempo * (2.0 * draws_5B[0] - 1.0)
    offset_B = (draws_5B[1] * FEATURES_PER_FRAME).long() * int(config.tempo > 0)
    left_B = (draws_5B[3] < config.without_wake_word) * (start_frames_B - (4 * draws_5B[4]).long()).clamp_min(
        0
    )
    offset_B = offset_B + FEATURES_PER_FRAME * left_B
    heard_B, new_start_B = _heard(lengths_B, start_frames_B, offset_B, tempo_B)
    fits_B = heard_B // FEATURES_PER_FRAME - new_start_B >= token_lengths_B.clamp_min(1)
    tempo_B, offset_B = torch.where(fits_B, tempo_B, 1.0), torch.where(fits_B, offset_B, 0)
    heard_B, new_start_B = _heard(lengths_B, start_frames_B, offset_B, tempo_B)

    position_BN = offset_B[:, None] + torch.arange(int(heard_B.max()), device=device) * tempo_B[:, None]
    position_BN = torch.minimum(position_BN, (lengths_B - 1)[:, None].to(position_BN))
    padding_BN1 = (torch.arange(position_BN.shape[1], device=device) >= heard_B[:, None])[..., None]
    features_BNF = _between(features_BNF, position_BN, 1)
    if config.vocal_tract > 0:
        warp_B = 1.0 + config.vocal_tract * (2.0 * draws_5B[2] - 1.0)
        features_BNF = _between(features_BNF, _warped_bins(warp_B, num_bins), 2)
    if config.channel > 0:
        features_BNF = features_BNF + config.channel * _ripple(ripples_BK, num_bins)[:, None, :]
    features_BNF = features_BNF.masked_fill(padding_BN1, math.log(FLOOR))
    line = (start_frames_B, new_start_B, heard_B, offset_B, tempo_B)
    last_B1 = (lengths_B // FEATURES_PER_FRAME - start_frames_B - 1)[:, None]
    frames_BT = torch.minimum(_pieces_at(*line, 1), last_B1).clamp_min(0)
    return Told(features_BNF, heard_B, new_start_B, _phones_at(phones_BM, *line)), frames_BT


def wrong_history(tokens_BU: Tensor, share: float, vocab_size: int, generator: torch.Generator) -> Tensor:
    """The labels as the predictor is told them: a `share` of them others, drawn evenly (never blank, token 0).

    A predictor that has seen nothing but truth is trusted too far, and one wrong token brings the next (scheduled
    sampling, Bengio et al. 2015, arXiv 1506.03099, with tokens by lot instead of the model's own).
    """
    drawn_BU = torch.rand(tokens_BU.shape, generator=generator)
    others_BU = torch.randint(1, vocab_size, tokens_BU.shape, generator=generator)
    wrong_BU = (drawn_BU < share).to(tokens_BU.device)
    return torch.where(wrong_BU, others_BU.to(tokens_BU.device), tokens_BU)


def _heard(
    lengths_B: Tensor, start_frames_B: Tensor, offset_B: Tensor, tempo_B: Tensor
) -> tuple[Tensor, Tensor]:
    """New lengths (10 ms) and the frames in which the wake words end now."""
    heard_B = ((lengths_B - offset_B) / tempo_B).long()
    start_B = ((FEATURES_PER_FRAME * start_frames_B - offset_B).clamp_min(0) / tempo_B).long()
    return heard_B, start_B // FEATURES_PER_FRAME


def _between(features_BNF: Tensor, position_BP: Tensor, axis: int) -> Tensor:
    """Linear interpolation of (B, N, F) along `axis` (1 or 2) at fractional places (B, P)."""
    last = features_BNF.shape[axis] - 1
    below_BP = position_BP.long().clamp(0, max(0, last - 1))
    weight_BP = (position_BP - below_BP).clamp(0.0, 1.0)
    batch, length, width = features_BNF.shape
    shape = (batch, -1, width) if axis == 1 else (batch, length, -1)
    below, weight = below_BP.unsqueeze(3 - axis), weight_BP.unsqueeze(3 - axis)
    lower = features_BNF.gather(axis, below.expand(*shape))
    upper = features_BNF.gather(axis, (below + 1).clamp_max(last).expand(*shape))
    return torch.lerp(lower, upper, weight)


def _warped_bins(warp_B: Tensor, num_bins: int) -> Tensor:
    """For every mel bin the (fractional) bin whose centre has its frequency times `warp_B`, kept in the range."""
    low, high = (_mel(torch.tensor(hertz)).item() for hertz in (LOW_HZ, HIGH_HZ))
    step = (high - low) / (num_bins + 1)
    centre_F = low + step * torch.arange(1, num_bins + 1, device=warp_B.device)
    hertz_BF = 700.0 * torch.expm1(centre_F / 1127.0) * warp_B[:, None]
    return ((_mel(hertz_BF) - low) / step - 1.0).clamp(0.0, num_bins - 1.0)


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


def _ripple(ripples_BK: Tensor, num_bins: int) -> Tensor:
    """Level and cosines over the mel axis (B, F); the k-th cosine has a weight of 1/k."""
    order_K = torch.arange(ripples_BK.shape[1], device=ripples_BK.device)
    place_F = torch.arange(num_bins, device=ripples_BK.device) / num_bins
    return (ripples_BK / order_K.clamp_min(1)) @ torch.cos(torch.pi * order_K[:, None] * place_F)


def _phones_at(
    phones_BM: Tensor,
    start_B: Tensor,
    new_start_B: Tensor,
    heard_B: Tensor,
    offset_B: Tensor,
    tempo_B: Tensor,
) -> Tensor:
    """The phones (B, M') on the new time line: what lay, on the old one, at the middle of each quarter frame."""
    quarters = FEATURES_PER_FRAME // FEATURES_PER_PHONE
    index_BM = _pieces_at(start_B, new_start_B, heard_B, offset_B, tempo_B, quarters)
    known_BM = (index_BM >= 0) & (index_BM < phones_BM.shape[1])
    if phones_BM.shape[1] == 0:
        return phones_BM.new_full(index_BM.shape, UNKNOWN_PHONE)
    found_BM = phones_BM.gather(1, index_BM.clamp(0, phones_BM.shape[1] - 1))
    return torch.where(known_BM, found_BM, UNKNOWN_PHONE)


def _pieces_at(
    start_B: Tensor, new_start_B: Tensor, heard_B: Tensor, offset_B: Tensor, tempo_B: Tensor, per_frame: int
) -> Tensor:
    """For each of the `per_frame` pieces of every new frame (B, pieces) the old piece in which its middle lies."""
    width = FEATURES_PER_FRAME // per_frame
    num_pieces = per_frame * int((heard_B // FEATURES_PER_FRAME - new_start_B).max())
    piece_BM = per_frame * new_start_B[:, None] + torch.arange(num_pieces, device=heard_B.device) + 0.5
    old_BM = (offset_B[:, None] + width * piece_BM * tempo_B[:, None]) / width
    return old_BM.long() - per_frame * start_B[:, None]
