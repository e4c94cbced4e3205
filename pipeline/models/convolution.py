"""Small convolutions over time and frequency inside each 80 ms frame, in front of a streaming encoder.

A linear layer over eight stacked feature frames has to learn a sound anew for each place where it may begin, and for
each length of the vocal tract; a convolution shares what it has learnt (as the subsampling layers of Gulati et al.
2020, arXiv 2005.08100). No frame sees another, so that streams need no state; borders are padded with zeros, which
are the mean of normalised features.

Kernels are 2-D parameters, one row for each output channel, so that whatever masks, quantises and packs matrices takes
them too. Columns: place in time, then in frequency, then input channel.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pipeline.features.frames import FEATURES_PER_FRAME
from pipeline.models.convolution_sizes import KERNEL, LayerSizes, layer_sizes, output_width


class Convolution(nn.Module):
    """3 × 3, zero padding of one, ReLU. (N, C, time, frequency) -> (N, C', time / stride, frequency / stride)."""

    def __init__(self, sizes: LayerSizes):
        super().__init__()
        self.stride = (sizes.time_stride, sizes.frequency_stride)
        rows, columns = sizes.out_channels, KERNEL * KERNEL * sizes.in_channels
        self.weight = nn.Parameter(torch.empty(rows, columns).uniform_(-1, 1) / math.sqrt(columns))
        self.bias = nn.Parameter(torch.empty(rows).uniform_(-1, 1) / math.sqrt(columns))

    def forward(self, x_NCTF: Tensor) -> Tensor:
        return conv2d(x_NCTF, self.kernel_OCTF(), self.bias, self.stride, padding=1).relu_()

    def kernel_OCTF(self) -> Tensor:
        """The weight as torch's and ONNX's convolutions want it."""
        return self.weight.view(len(self.weight), KERNEL, KERNEL, -1).permute(0, 3, 1, 2)


class Convolutions(nn.ModuleList):
    """stacked_BTF (eight frames of `num_mel_bins`) -> (B, T, `output_width`), one layer for each of `channels`."""

    def __init__(self, num_mel_bins: int, channels: Sequence[int]):
        super().__init__(Convolution(sizes) for sizes in layer_sizes(channels))
        self.num_mel_bins = num_mel_bins
        self.output_width = output_width(FEATURES_PER_FRAME, num_mel_bins, channels)

    def forward(self, stacked_BTF: Tensor) -> Tensor:
        batch, num_frames, _ = stacked_BTF.shape
        x_NCTF = stacked_BTF.reshape(batch * num_frames, 1, FEATURES_PER_FRAME, self.num_mel_bins)
        # Channels last: half of the time on a CPU.
        x_NCTF = x_NCTF.contiguous(memory_format=torch.channels_last)
        for layer in self:
            x_NCTF = layer(x_NCTF)
        return x_NCTF.permute(0, 2, 3, 1).reshape(batch, num_frames, self.output_width)
