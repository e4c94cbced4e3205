"""One encoder step for many streams: their states side by side, and apart again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.models.lstm_encoder import LSTMState
from pipeline.models.transducer import Transducer


def step_together(
    model: Transducer, features_BNF: Tensor, states: Sequence[Any]
) -> tuple[list[Tensor], list[Any]]:
    """N feature frames (a multiple of 8) of each of B streams -> (encoded_TD of each, state of each).

    LSTM states are joined and the batch is one step. Emformer's hold segments that need not be equally far in all
    streams, so those go one by one.
    """
    if len(states) > 1 and all(isinstance(state, LSTMState) for state in states):
        joined = LSTMState(
            torch.cat([state.features_BNF for state in states]),
            torch.cat([state.hidden_LBD for state in states], 1),
            torch.cat([state.cell_LBD for state in states], 1),
        )
        encoded_BTD, after = model.step(features_BNF, joined)
        apart = zip(
            after.features_BNF.split(1), after.hidden_LBD.split(1, 1), after.cell_LBD.split(1, 1), strict=True
        )
        return list(encoded_BTD), [LSTMState(*parts) for parts in apart]
    pairs = [
        model.step(features_1NF, state)
        for features_1NF, state in zip(features_BNF.split(1), states, strict=True)
    ]
    return [encoded_1TD[0] for encoded_1TD, _ in pairs], [state for _, state in pairs]
