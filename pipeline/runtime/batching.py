"""One encoder step for many streams: their states side by side, and apart again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.models.lstm_encoder import LSTMEncoder, LSTMState
from pipeline.models.streaming import FEATURES_PER_FRAME
from pipeline.models.transducer import Transducer


def step_together(
    model: Transducer, features_BNF: Tensor, states: Sequence[Any]
) -> tuple[list[Tensor], list[Any]]:
    """Eight feature frames of each of B streams -> (encoded_TD of each, state of each).

    LSTM states are joined and the batch is one step. Emformer's hold segments that need not be equally far in all
    streams, so those go one by one.
    """
    if isinstance(model.encoder, LSTMEncoder):
        joined = LSTMState(
            torch.cat([state.features_BNF for state in states]),
            torch.cat([state.hidden_LBD for state in states], 1),
            torch.cat([state.cell_LBD for state in states], 1),
        )
        encoded_BD, after = lstm_frame(model, features_BNF, joined)
        apart = zip(
            after.features_BNF.split(1), after.hidden_LBD.split(1, 1), after.cell_LBD.split(1, 1), strict=True
        )
        return list(encoded_BD.split(1)), [LSTMState(*parts) for parts in apart]
    pairs = [
        model.step(features_1NF, state)
        for features_1NF, state in zip(features_BNF.split(1), states, strict=True)
    ]
    return [encoded_1TD[0] for encoded_1TD, _ in pairs], [state for _, state in pairs]


def lstm_frame(model: Transducer, features_BNF: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """`model.step` for exactly one frame of 80 ms: encoded_BD and the next state, the same up to rounding.

    torch's sequence kernel costs 240 µs a layer however short the sequence is, a single cell 65 µs (one core, width
    128). Raises ValueError for any other number of feature frames.
    """
    encoder = model.encoder
    if features_BNF.shape[1] + state.features_BNF.shape[1] != FEATURES_PER_FRAME:
        raise ValueError(f"features_BNF: must be one frame of {FEATURES_PER_FRAME}")
    normal_BNF = (features_BNF - model.feature_mean_F) * model.feature_scale_F
    x_BD = encoder.input(normal_BNF.flatten(1))
    hidden, cell = [], []
    for index, (layer, norm) in enumerate(zip(encoder.layers, encoder.norms, strict=True)):
        weights = (layer.weight_ih, layer.weight_hh, layer.bias, layer.no_bias)
        hidden_BD, cell_BD = torch._VF.lstm_cell(
            x_BD, (state.hidden_LBD[index], state.cell_LBD[index]), *weights
        )
        x_BD = norm(hidden_BD if index == 0 else x_BD + hidden_BD)
        hidden.append(hidden_BD)
        cell.append(cell_BD)
    return x_BD, LSTMState(state.features_BNF, torch.stack(hidden), torch.stack(cell))
