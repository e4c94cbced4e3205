"""The contract of every layer that hears audio: whole utterances and streams give the same numbers.

    encoded_BTD, frame_lengths_B = encoder(features_BNF, feature_lengths_B)      # whole, N frames of 10 ms
    state = encoder.initial_state(batch)                                         # a stream
    encoded_BTD, state = encoder.step(features_BNF, state)                       # any N, also 0; perhaps T = 0
    encoded_BTD = encoder.flush(state)                                           # what look-ahead held back

State goes in and out and is never changed in place. Eight feature frames make one encoder frame of 80 ms;
those behind the last whole frame are dropped.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.features.frames import FEATURES_PER_FRAME


class StreamingEncoder(Protocol):
    output_width: int

    def __call__(self, features_BNF: Tensor, feature_lengths_B: Tensor) -> tuple[Tensor, Tensor]: ...

    def initial_state(self, batch: int) -> Any: ...

    def step(self, features_BNF: Tensor, state: Any) -> tuple[Tensor, Any]: ...

    def flush(self, state: Any) -> Tensor: ...


def drop_before(
    encoded_BTD: Tensor, frame_lengths_B: Tensor, start_frames_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Each utterance from its frame `start_frames_B` on: (encoded_BTD, frame_lengths_B), shorter by as much.

    What was heard before (a wake word, the end of another sentence) is context: it shaped the encoder's state, and
    neither losses nor search look at its frames (Schwarz et al. 2020, "Improving RNN-T ASR accuracy using context
    audio", arXiv 2011.10538).
    """
    lengths_B = (frame_lengths_B - start_frames_B).clamp_min(0)
    t_T = torch.arange(int(lengths_B.max()), device=encoded_BTD.device)
    index_BT = (t_T + start_frames_B[:, None]).clamp_max(encoded_BTD.shape[1] - 1)
    index_BTD = index_BT[..., None].expand(-1, -1, encoded_BTD.shape[2])
    return encoded_BTD.gather(1, index_BTD), lengths_B


def stack(features_BNF: Tensor) -> Tensor:
    """(B, N, F) -> (B, N // 8, 8 F): whole groups of eight frames side by side."""
    batch, num_features, num_bins = features_BNF.shape
    num_frames = num_features // FEATURES_PER_FRAME
    used_BNF = features_BNF[:, : num_frames * FEATURES_PER_FRAME]
    return used_BNF.reshape(batch, num_frames, FEATURES_PER_FRAME * num_bins)
