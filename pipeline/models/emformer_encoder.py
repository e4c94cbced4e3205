"""Streaming Emformer encoder: blockwise attention with a left context, a short look-ahead and memory vectors.

Feature frames (10 ms) are stacked by eight into frames of 80 ms, projected, and encoded segment by segment.
A segment leaves when its right context has arrived, so a frame waits for at most (segment_frames +
right_context_frames) x 80 ms. Frames behind the end of an utterance are zeros for the look-ahead and masked
for attention, in the whole and in the streaming computation alike.

Source: Shi et al. 2021 (arXiv 2010.10759); layers from torchaudio.models.Emformer. Its `infer` writes into
the state it is given and takes full segments only: `step` and `flush` below copy the state and take any
length.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.features.frames import FEATURES_PER_FRAME
from pipeline.models.streaming import stack


@dataclass(frozen=True)
class EmformerConfig:
    num_layers: int = 6
    width: int = 192
    num_heads: int = 4
    feed_forward_width: int = 768
    segment_frames: int = 4  # of 80 ms
    left_context_frames: int = 12
    right_context_frames: int = 1
    memory_size: int = 0  # memory vectors, one per past segment
    dropout: float = 0.1


class EmformerState(NamedTuple):
    """What a stream carries: unstacked features, projected frames not yet encoded, attention state per
    layer.
    """

    features_BNF: Tensor
    frames_BTD: Tensor
    layers: list[list[Tensor]] | None


class EmformerEncoder(nn.Module):
    """features_BNF (10 ms) -> encoded_BTD (80 ms), D = config.width."""

    def __init__(self, num_mel_bins: int, config: EmformerConfig):
        super().__init__()
        self.config = config
        self.input = nn.Linear(FEATURES_PER_FRAME * num_mel_bins, config.width)
        self.emformer = torchaudio.models.Emformer(
            input_dim=config.width,
            num_heads=config.num_heads,
            ffn_dim=config.feed_forward_width,
            num_layers=config.num_layers,
            segment_length=config.segment_frames,
            dropout=config.dropout,
            left_context_length=config.left_context_frames,
            right_context_length=config.right_context_frames,
            max_memory_size=config.memory_size,
        )

    @property
    def output_width(self) -> int:
        return self.config.width

    def _project(self, features_BNF: Tensor) -> Tensor:
        """Stack whole groups of eight feature frames and project them; the rest is dropped."""
        return self.input(stack(features_BNF))

    def forward(self, features_BNF: Tensor, feature_lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """(encoded_BTD, frame_lengths_B), frame_lengths = feature_lengths // 8; padding may hold anything."""
        frame_lengths_B = feature_lengths_B // FEATURES_PER_FRAME
        num_frames = int(frame_lengths_B.max())
        frames_BTD = self._project(features_BNF)[:, :num_frames]
        if num_frames == 0:
            return frames_BTD, frame_lengths_B
        t_T = torch.arange(num_frames, device=frames_BTD.device)
        frames_BTD = torch.where((t_T < frame_lengths_B[:, None])[..., None], frames_BTD, 0.0)
        padded_BTD = pad(frames_BTD, (0, 0, 0, self.config.right_context_frames))
        return self.emformer(padded_BTD, frame_lengths_B)[0], frame_lengths_B

    def initial_state(self, batch: int) -> EmformerState:
        weight = self.input.weight
        num_mel_bins = self.input.in_features // FEATURES_PER_FRAME
        return EmformerState(
            weight.new_zeros(batch, 0, num_mel_bins), weight.new_zeros(batch, 0, self.config.width), None
        )

    def step(self, features_BNF: Tensor, state: EmformerState) -> tuple[Tensor, EmformerState]:
        """Encoded frames that are complete now (perhaps none) and the next state; a chunk of any length."""
        features_BNF = torch.cat([state.features_BNF, features_BNF], 1)
        frames_BTD = torch.cat([state.frames_BTD, self._project(features_BNF)], 1)
        rest_BNF = features_BNF[:, features_BNF.shape[1] // FEATURES_PER_FRAME * FEATURES_PER_FRAME :]
        segment, right = self.config.segment_frames, self.config.right_context_frames
        encoded, layers = [frames_BTD[:, :0]], state.layers
        while frames_BTD.shape[1] >= segment + right:
            ahead_BTD = frames_BTD[:, segment : segment + right]
            encoded_BTD, layers = self._segment(frames_BTD[:, :segment], ahead_BTD, layers)
            encoded.append(encoded_BTD)
            frames_BTD = frames_BTD[:, segment:]
        return torch.cat(encoded, 1), EmformerState(rest_BNF, frames_BTD, layers)

    def flush(self, state: EmformerState) -> Tensor:
        """The last frames of a stream that has ended, without waiting for their look-ahead."""
        segment, right = self.config.segment_frames, self.config.right_context_frames
        frames_BTD, layers = state.frames_BTD, state.layers
        encoded = [frames_BTD[:, :0]]
        while frames_BTD.shape[1] > 0:
            ahead_BTD = frames_BTD[:, segment : segment + right]
            ahead_BTD = pad(ahead_BTD, (0, 0, 0, right - ahead_BTD.shape[1]))
            encoded_BTD, layers = self._segment(frames_BTD[:, :segment], ahead_BTD, layers)
            encoded.append(encoded_BTD)
            frames_BTD = frames_BTD[:, segment:]
        return torch.cat(encoded, 1)

    def _segment(
        self, frames_BTD: Tensor, ahead_BTD: Tensor, layers: list[list[Tensor]] | None
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """One segment (the last of a stream may be short) through all layers, as Emformer.infer does it."""
        frames_TBD, ahead_TBD = frames_BTD.transpose(0, 1), ahead_BTD.transpose(0, 1)
        lengths_B = torch.full((frames_TBD.shape[1],), frames_TBD.shape[0], device=frames_TBD.device)
        memory_MBD = frames_TBD.new_empty(0)
        if self.config.memory_size:
            memory_MBD = frames_TBD.mean(0, keepdim=True)
        next_layers = []
        for index, layer in enumerate(self.emformer.emformer_layers):
            before = None if layers is None else list(layers[index])  # infer assigns to the list it is given
            frames_TBD, ahead_TBD, after, memory_MBD = layer.infer(
                frames_TBD, lengths_B, ahead_TBD, before, memory_MBD
            )
            next_layers.append(after)
        return frames_TBD.transpose(0, 1), next_layers
