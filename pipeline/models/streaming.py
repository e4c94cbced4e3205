"""The contract of every layer that hears audio: whole utterances and streams give the same numbers.

    encoded_BTD, frame_lengths_B = encoder(features_BNF, feature_lengths_B)      # whole, N frames of 10 ms
    state = encoder.initial_state(batch)                                         # a stream
    encoded_BTD, state = encoder.step(features_BNF, state)                       # any N, also 0; perhaps T = 0
    encoded_BTD = encoder.flush(state)                                           # what look-ahead held back

State goes in and out and is never changed in place. Eight feature frames make one encoder frame of 80 ms;
those behind the last whole frame are dropped.
"""

from typing import Any, Protocol

from torch import Tensor

FEATURES_PER_FRAME = 8  # 10 ms feature frames in an 80 ms encoder frame


class StreamingEncoder(Protocol):
    output_width: int

    def __call__(self, features_BNF: Tensor, feature_lengths_B: Tensor) -> tuple[Tensor, Tensor]: ...

    def initial_state(self, batch: int) -> Any: ...

    def step(self, features_BNF: Tensor, state: Any) -> tuple[Tensor, Any]: ...

    def flush(self, state: Any) -> Tensor: ...


def stack(features_BNF: Tensor) -> Tensor:
    """(B, N, F) -> (B, N // 8, 8 F): whole groups of eight frames side by side."""
    batch, num_features, num_bins = features_BNF.shape
    num_frames = num_features // FEATURES_PER_FRAME
    used_BNF = features_BNF[:, : num_frames * FEATURES_PER_FRAME]
    return used_BNF.reshape(batch, num_frames, FEATURES_PER_FRAME * num_bins)
