"""Sizes of an encoder's convolutions (convolution.py), torch-free for the engine."""

from collections.abc import Sequence
from typing import NamedTuple

KERNEL = 3  # places in time and in frequency


class LayerSizes(NamedTuple):
    """Channels before and after, strides in time and in frequency."""

    in_channels: int
    out_channels: int
    time_stride: int
    frequency_stride: int


def layer_sizes(channels: Sequence[int]) -> list[LayerSizes]:
    """One layer for each of `channels`: all halve the frequencies, all but the first one the time."""
    before = [1, *channels]
    return [LayerSizes(before[i], after, 1 if i == 0 else 2, 2) for i, after in enumerate(channels)]


def output_width(num_features: int, num_mel_bins: int, channels: Sequence[int]) -> int:
    """Numbers that the last layer gives for a frame of `num_features` feature frames; without layers the frame's."""
    time, frequency, num_channels = num_features, num_mel_bins, 1
    for sizes in layer_sizes(channels):
        time, frequency = -(-time // sizes.time_stride), -(-frequency // sizes.frequency_stride)
        num_channels = sizes.out_channels
    return time * frequency * num_channels
