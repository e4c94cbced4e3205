"""The predictor sees the last two tokens only (Ghodsi et al. 2020; Prabhavalkar et al. 2021, "Less is more").

With so short a context, hypotheses that end alike merge exactly: lattices and caches need that.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.models.config import PredictorConfig

CONTEXT_SIZE = 2


class Predictor(nn.Module):
    """Embeddings of the last two tokens, side by side, through one layer; before the first token: blanks."""

    def __init__(self, vocab_size: int, config: PredictorConfig):
        super().__init__()
        self.output_width = config.width
        self.embedding = nn.Embedding(vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.mix = nn.Linear(CONTEXT_SIZE * config.width, config.width)

    def forward(self, context_X2: Tensor) -> Tensor:
        """(…, 2) last two tokens, older first -> (…, D)."""
        return torch.tanh(self.mix(self.embedding(context_X2).flatten(-2)))

    def all_prefixes(self, tokens_BU: Tensor) -> Tensor:
        """(B, labels) -> predicted_BUD for every prefix, the empty one first: U = labels + 1."""
        padded = pad(tokens_BU, (CONTEXT_SIZE, 0))
        return self(padded.unfold(1, CONTEXT_SIZE, 1))
