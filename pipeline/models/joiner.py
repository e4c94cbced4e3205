"""The joiner: logits = W tanh(E encoded + P predicted) + b (Graves 2012, with the usual projections)."""

import torch
from torch import Tensor, nn


class Joiner(nn.Module):
    def __init__(self, encoder_width: int, predictor_width: int, width: int, vocab_size: int):
        super().__init__()
        self.encoder_projection = nn.Linear(encoder_width, width)
        self.predictor_projection = nn.Linear(predictor_width, width, bias=False)
        self.output = nn.Linear(width, vocab_size)

    def forward(self, encoded_XD: Tensor, predicted_XD: Tensor) -> Tensor:
        """(…, D) and (…, D), broadcast against each other -> logits (…, V)."""
        return self.join(self.encoder_projection(encoded_XD), self.predictor_projection(predicted_XD))

    def join(self, projected_encoded_XJ: Tensor, projected_predicted_XJ: Tensor) -> Tensor:
        """Logits from what the two projections gave: search projects a frame and a context once."""
        return self.output(torch.tanh(projected_encoded_XJ + projected_predicted_XJ))
