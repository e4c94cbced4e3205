"""The kernels (`runtime/kernels.py`) of every model, by torch: the reference of the compiled ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.biased_lexicon import BiasedLexicon
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.search import BeamConfig
from pipeline.features import fbank
from pipeline.runtime.bundle import Packed


class TorchKernels:
    """The model's own modules, one stream after the other."""

    def __init__(self, packed: Packed):
        self.model, self.config = packed.model, packed.fbank_config

    def fbank_state(self) -> fbank.FbankState:
        return fbank.initial_state(self.config)

    def features(self, samples_S: np.ndarray, state: fbank.FbankState) -> tuple[np.ndarray, fbank.FbankState]:
        features_NF, state = fbank.step(torch.from_numpy(samples_S), state, self.config)
        return features_NF.numpy(), state

    def last_features(self, state: fbank.FbankState) -> np.ndarray:
        return fbank.flush(state, self.config).numpy()

    def encoder_state(self) -> Any:
        return self.model.initial_state(1)

    @torch.inference_mode()
    def encode(
        self, features_BNF: np.ndarray, states: Sequence[Any]
    ) -> tuple[Sequence[np.ndarray], list[Any]]:
        alone = zip(torch.from_numpy(features_BNF).split(1), states, strict=True)
        pairs = [self.model.step(features_1NF, state) for features_1NF, state in alone]
        return [encoded_1TD[0].numpy() for encoded_1TD, _ in pairs], [state for _, state in pairs]

    @torch.inference_mode()
    def last_frames(self, state: Any) -> np.ndarray:
        return self.model.flush(state)[0].numpy()

    def search(self, config: BeamConfig, bias: BiasTrie | None, lexicon: Lexicon | None) -> BeamSearch:
        both = BiasedLexicon(bias, lexicon) if bias and lexicon else None
        return BeamSearch(self.model, config, both or bias or lexicon)
