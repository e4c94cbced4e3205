"""Streaming LSTM encoder: stacked features, perhaps convolutions, a projection, then LSTM layers with residual paths
and layer norm.

Matrices are explicit 2-D parameters and reach the kernel as arguments, so that masked or quantised weights
given through `torch.func.functional_call` are the ones in use (`nn.LSTM` keeps a second list of its weights).
Layers: y_1 = LN(LSTM(x)), y_k = LN(y_{k-1} + LSTM(y_{k-1})); layer norm tames quantised recurrences
(Hou et al. 2019, NeurIPS, "Normalization helps training of quantized LSTM").
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.features.frames import FEATURES_PER_FRAME
from pipeline.models.config import EncoderConfig
from pipeline.models.convolution import Convolutions
from pipeline.models.streaming import stack


class LSTMState(NamedTuple):
    """`features_BNF`: frames that do not fill 80 ms yet. hidden and cell: (layers, B, D)."""

    features_BNF: Tensor
    hidden_LBD: Tensor
    cell_LBD: Tensor


class LSTMLayer(nn.Module):
    """One unidirectional LSTM; rows of the weights are gates i, f, g, o (torch's order), forget bias 1."""

    def __init__(self, input_width: int, width: int):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * width, input_width))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, width))
        self.bias = nn.Parameter(torch.zeros(4 * width))
        self.register_buffer("no_bias", torch.zeros(4 * width), persistent=False)
        nn.init.xavier_uniform_(self.weight_ih)
        for gate_DD in self.weight_hh.data.split(width):
            nn.init.orthogonal_(gate_DD)
        self.bias.data[width : 2 * width] = 1.0

    def forward(self, x_BTD: Tensor, hidden_BD: Tensor, cell_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(y_BTD, last hidden_BD, last cell_BD)."""
        weights = [self.weight_ih, self.weight_hh, self.bias, self.no_bias]
        start = (hidden_BD[None].contiguous(), cell_BD[None].contiguous())
        y_BTD, hidden_1BD, cell_1BD = torch._VF.lstm(
            x_BTD, start, weights, True, 1, 0.0, self.training, False, True
        )
        return y_BTD, hidden_1BD[0], cell_1BD[0]


class LSTMEncoder(nn.Module):
    """features_BNF (10 ms, normalised) -> encoded_BTD (80 ms), D = config.width. Contract: models/streaming.py."""

    def __init__(self, num_mel_bins: int, config: EncoderConfig):
        super().__init__()
        self.num_mel_bins, self.config, self.output_width = num_mel_bins, config, config.width
        stacked_width = FEATURES_PER_FRAME * num_mel_bins
        self.convolutions = Convolutions(num_mel_bins, config.channels) if config.channels else None
        if self.convolutions is not None:
            stacked_width = self.convolutions.output_width
        input_width = config.input_width or config.width
        self.input = nn.Linear(stacked_width, input_width)
        nn.init.normal_(self.input.weight, std=1 / math.sqrt(stacked_width))
        widths = [input_width] + [config.width] * (config.num_layers - 1)
        self.layers = nn.ModuleList(LSTMLayer(width, config.width) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in widths)
        self.dropout = nn.Dropout(config.dropout or 0.0)

    def forward(self, features_BNF: Tensor, feature_lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        state = self.initial_state(features_BNF.shape[0])
        encoded_BTD, _, _ = self._layers(stack(features_BNF), state.hidden_LBD, state.cell_LBD)
        return encoded_BTD, feature_lengths_B // FEATURES_PER_FRAME

    def initial_state(self, batch: int) -> LSTMState:
        weight = self.input.weight
        zeros_LBD = weight.new_zeros(self.config.num_layers, batch, self.config.width)
        return LSTMState(weight.new_zeros(batch, 0, self.num_mel_bins), zeros_LBD, zeros_LBD)

    def step(self, features_BNF: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        features_BNF = torch.cat([state.features_BNF, features_BNF], 1)
        used = features_BNF.shape[1] // FEATURES_PER_FRAME * FEATURES_PER_FRAME
        rest_BNF = features_BNF[:, used:]
        encoded_BTD, hidden_LBD, cell_LBD = self._layers(
            stack(features_BNF), state.hidden_LBD, state.cell_LBD
        )
        return encoded_BTD, LSTMState(rest_BNF, hidden_LBD, cell_LBD)

    def flush(self, state: LSTMState) -> Tensor:
        """Nothing: an LSTM holds no frame back."""
        return state.hidden_LBD.new_zeros(state.hidden_LBD.shape[1], 0, self.output_width)

    def _layers(
        self, stacked_BTF: Tensor, hidden_LBD: Tensor, cell_LBD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if stacked_BTF.shape[1] == 0:  # torch's LSTM refuses an empty sequence
            return stacked_BTF.new_zeros(len(stacked_BTF), 0, self.output_width), hidden_LBD, cell_LBD
        x_BTD = self.input(stacked_BTF if self.convolutions is None else self.convolutions(stacked_BTF))
        hidden, cell = [], []
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y_BTD, last_hidden_BD, last_cell_BD = layer(x_BTD, hidden_LBD[index], cell_LBD[index])
            x_BTD = norm(y_BTD if index == 0 else x_BTD + self.dropout(y_BTD))
            hidden.append(last_hidden_BD)
            cell.append(last_cell_BD)
        return x_BTD, torch.stack(hidden), torch.stack(cell)
