"""Greedy search, frame by frame, at most one token per 80 ms frame; a whole batch at once.

The same search as sherpa-onnx's greedy: the most probable symbol of a frame is emitted, blank moves on.
"""

import torch
from torch import Tensor

from pipeline.decoding.token_lattice import BLANK_ID, TokenPath
from pipeline.models.predictor import CONTEXT_SIZE
from pipeline.models.transducer import Transducer


@torch.no_grad()
def greedy(model: Transducer, encoded_BTD: Tensor, frame_lengths_B: Tensor) -> list[TokenPath]:
    """The greedy path of each utterance; frames past its length count for nothing."""
    batch, num_frames, _ = encoded_BTD.shape
    projected_BTJ = model.joiner.encoder_projection(encoded_BTD)
    context_B2 = encoded_BTD.new_zeros(batch, CONTEXT_SIZE, dtype=torch.long)
    predicted_BJ = model.joiner.predictor_projection(model.predict_context(context_B2))
    symbols, scores = [], []
    for t in range(num_frames):
        log_probs_BV = model.joiner.join(projected_BTJ[:, t], predicted_BJ).log_softmax(-1)
        score_B, symbol_B = log_probs_BV.max(-1)
        symbols.append(symbol_B)
        scores.append(score_B)
        emitted_B1 = (symbol_B != BLANK_ID)[:, None]
        if emitted_B1.any():
            shifted_B2 = torch.cat([context_B2[:, 1:], symbol_B[:, None]], 1)
            context_B2 = torch.where(emitted_B1, shifted_B2, context_B2)
            predicted_BJ = model.joiner.predictor_projection(model.predict_context(context_B2))
    if not symbols:
        return [TokenPath.of([], 0.0)] * batch
    inside_BT = torch.arange(num_frames, device=frame_lengths_B.device) < frame_lengths_B[:, None]
    symbols_BT = torch.where(inside_BT, torch.stack(symbols, 1), BLANK_ID).tolist()
    log_prob_B = torch.where(inside_BT, torch.stack(scores, 1), 0.0).sum(1).tolist()
    return [TokenPath.of(*pair) for pair in zip(symbols_BT, log_prob_B, strict=True)]
