"""Beam search over a batch of whole utterances, best paths only: what evaluation, pseudo-labels and dev sets use.

The same search as decoding/beam.py (at most one token per 80 ms frame, hypotheses with the same last two tokens merge,
the better one gives its score; Prabhavalkar et al. 2021, arXiv 2012.06749), which is its reference and leaves lattices
behind; here the states of all utterances are one tensor. With one state it is the greedy search.
"""

import torch
from torch import Tensor

from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import BLANK_ID, TokenPath
from pipeline.models.predictor import CONTEXT_SIZE
from pipeline.models.transducer import Transducer

DEAD = float("-inf")


@torch.no_grad()
def beam_search(
    model: Transducer, encoded_BTD: Tensor, frame_lengths_B: Tensor, config: BeamConfig | None = None
) -> list[TokenPath]:
    """The best path of each utterance; frames past its length count for nothing."""
    config = config or BeamConfig()
    batch, num_frames, _ = encoded_BTD.shape
    device, joiner = encoded_BTD.device, model.joiner
    projected_BT1J = joiner.encoder_projection(encoded_BTD)[:, :, None]
    context_BS2 = torch.zeros(batch, config.num_states, CONTEXT_SIZE, dtype=torch.long, device=device)
    total_BS = torch.full((batch, config.num_states), DEAD, dtype=torch.double, device=device)
    total_BS[:, 0] = 0.0
    stay_BS = torch.arange(config.num_states, device=device).expand(batch, -1)
    sources, tokens = [], []
    for t in range(num_frames):
        predicted_XD = model.predict_context(context_BS2.flatten(0, 1))
        predicted_BSJ = joiner.predictor_projection(predicted_XD).unflatten(0, (batch, -1))
        log_probs_BSV = joiner.join(projected_BT1J[:, t], predicted_BSJ).log_softmax(-1)
        candidates_BSV = merged(total_BS[..., None] + log_probs_BSV, context_BS2)
        best_BS, index_BS = candidates_BSV.flatten(1).topk(config.num_states)
        best_BS = best_BS.masked_fill(best_BS < best_BS[:, :1] - config.beam, DEAD)
        inside_B1 = (t < frame_lengths_B)[:, None]
        source_BS = torch.where(inside_B1, index_BS // candidates_BSV.shape[2], stay_BS)
        token_BS = torch.where(inside_B1, index_BS % candidates_BSV.shape[2], BLANK_ID)
        total_BS = torch.where(inside_B1, best_BS, total_BS)
        before_BS2 = context_BS2.gather(1, source_BS[..., None].expand_as(context_BS2))
        after_BS2 = torch.stack([before_BS2[..., 1], token_BS], -1)
        context_BS2 = torch.where((token_BS != BLANK_ID)[..., None], after_BS2, before_BS2)
        sources.append(source_BS)
        tokens.append(token_BS)
    return _traced(sources, tokens, total_BS[:, 0].tolist())


def merged(total_BSV: Tensor, context_BS2: Tensor) -> Tensor:
    """Candidates (state, next token) with -inf for each whose last two tokens another one reaches at a better score.

    A label's candidates meet those of states with the same last token; and a state that stays (blank) meets the
    label that leads from elsewhere to its own two tokens.
    """
    before_BS, last_BS = context_BS2.unbind(-1)
    # leader: the first state with the same last token
    leader_BS = (last_BS[:, :, None] == last_BS[:, None, :]).int().argmax(-1)
    leader_BSV = leader_BS[..., None].expand_as(total_BSV)
    best_BSV = torch.full_like(total_BSV, DEAD).scatter_reduce(1, leader_BSV, total_BSV, "amax")
    lost_BSV = total_BSV < best_BSV.gather(1, leader_BSV)
    lost_BSV[..., BLANK_ID] = False
    # rival_BRS: the label from state R that leads to where state S is
    into_BRS = last_BS[:, None, :].expand(-1, total_BSV.shape[1], -1)
    meets_BRS = (last_BS[:, :, None] == before_BS[:, None, :]) & (into_BRS != BLANK_ID)
    rival_BRS = total_BSV.gather(2, into_BRS).masked_fill(~meets_BRS, DEAD)
    blank_BS = total_BSV[..., BLANK_ID]
    lost_BSV[..., BLANK_ID] = blank_BS < rival_BRS.amax(1)
    batch_X, rival_X, state_X = (meets_BRS & (rival_BRS <= blank_BS[:, None, :])).nonzero(as_tuple=True)
    lost_BSV[batch_X, rival_X, last_BS[batch_X, state_X]] = True
    return total_BSV.masked_fill(lost_BSV, DEAD)


def _traced(sources: list[Tensor], tokens: list[Tensor], log_probs: list[float]) -> list[TokenPath]:
    """The paths that end in each utterance's first state, read from the last frame back."""
    batch = len(log_probs)
    if not sources:
        return [TokenPath.of([], 0.0)] * batch
    rows_B = torch.arange(batch, device=sources[0].device)
    state_B = torch.zeros_like(rows_B)
    symbols = []
    for source_BS, token_BS in zip(reversed(sources), reversed(tokens), strict=True):
        symbols.append(token_BS[rows_B, state_B])
        state_B = source_BS[rows_B, state_B]
    symbols_BT = torch.stack(symbols[::-1], 1).tolist()
    return [TokenPath.of(*pair) for pair in zip(symbols_BT, log_probs, strict=True)]
