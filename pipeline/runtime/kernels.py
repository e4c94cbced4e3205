"""What the engine computes with: filter bank, encoder and beam search of a packed file, in NumPy arrays.

`kernels_of` decides: compiled, on the packed integers, for what `fast_weights.py` knows; torch's (`torch_kernels.py`),
which are the reference, for every other model. Both give each stream, to the last bit, what it would get alone.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.search import BeamConfig, Search
from pipeline.runtime import fast_fbank, fast_step
from pipeline.runtime.bundle import Packed
from pipeline.runtime.fast_beam import FastBeamSearch, Memo
from pipeline.runtime.fast_weights import Weights, nameless, weights_of


class Kernels(Protocol):
    """States go in and out and are never changed in place. Arrays are float32.

    A filter bank's state tells `num_samples`, heard so far. `encode`: exactly one frame of 80 ms of each of B streams
    (B, 8, F) -> its encoder frames (T, D), none or several where the encoder looks ahead. `last_…`: what was held
    back when the stream ends.
    """

    def fbank_state(self) -> Any: ...

    def features(self, samples_S: np.ndarray, state: Any) -> tuple[np.ndarray, Any]: ...

    def last_features(self, state: Any) -> np.ndarray: ...

    def encoder_state(self) -> Any: ...

    def encode(
        self, features_BNF: np.ndarray, states: Sequence[Any]
    ) -> tuple[Sequence[np.ndarray], list[Any]]: ...

    def last_frames(self, state: Any) -> np.ndarray: ...

    def search(self, config: BeamConfig, bias: BiasTrie | None, lexicon: Lexicon | None) -> Search: ...


def kernels_of(packed: Packed) -> Kernels:
    """Compiled ones for an LSTM with at most 255 levels, else torch's, which only then is imported."""
    try:
        return FastKernels(weights_of(packed.contents))
    except ValueError:  # a file that was loaded, so that nothing but its kind can be wrong
        from pipeline.runtime.torch_kernels import TorchKernels

        return TorchKernels(packed)


class FastKernels:
    """Compiled; see fast_fbank.py, fast_step.py, fast_beam.py."""

    def __init__(self, weights: Weights):
        self.weights, self.encoder = weights, nameless(weights.encoder)
        self.num_mel_bins = weights.encoder.statistics_2F.shape[1]
        self.memo = Memo.of(weights.search)

    def fbank_state(self) -> fast_fbank.FbankState:
        return fast_fbank.initial_state()

    def features(
        self, samples_S: np.ndarray, state: fast_fbank.FbankState
    ) -> tuple[np.ndarray, fast_fbank.FbankState]:
        return fast_fbank.step(samples_S, state, self.num_mel_bins)

    def last_features(self, state: fast_fbank.FbankState) -> np.ndarray:
        return fast_fbank.flush(state, self.num_mel_bins)

    def encoder_state(self) -> np.ndarray:
        """state_2LD: hidden and cell of each layer."""
        return np.zeros((2, *self.weights.encoder.norms_L2D[:, 0].shape), np.float32)

    def encode(
        self, features_BNF: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[Sequence[np.ndarray], list[np.ndarray]]:
        encoded_BD, state_B2LD = fast_step.encode(features_BNF, np.array(states), self.encoder)
        # Copies, or a stream would hold on to the memory of all that went with it.
        return encoded_BD[:, None], [state_2LD.copy() for state_2LD in state_B2LD]

    def last_frames(self, state: np.ndarray) -> np.ndarray:
        """Nothing: an LSTM holds no frame back."""
        return np.zeros((0, state.shape[2]), np.float32)

    def search(self, config: BeamConfig, bias: BiasTrie | None, lexicon: Lexicon | None) -> FastBeamSearch:
        return FastBeamSearch(self.weights.search, config, bias, lexicon, self.memo)
