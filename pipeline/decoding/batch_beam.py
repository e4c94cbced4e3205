"""Beam search over a batch of whole utterances, best paths only: what evaluation, pseudo-labels and dev sets use.

The same search as decoding/beam.py (at most one token per 80 ms frame, hypotheses with the same last two tokens and
place in the lexicon merge, the better one gives its score; Prabhavalkar et al. 2021, arXiv 2012.06749), which is its
reference and leaves lattices behind; here the states of all utterances are one tensor. With one state and no lexicon
it is the greedy search.
"""

import torch
from torch import Tensor

from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import BLANK_ID, TokenPath
from pipeline.models.predictor import CONTEXT_SIZE
from pipeline.models.transducer import Transducer

DEAD = float("-inf")


@torch.no_grad()
def beam_search(
    model: Transducer,
    encoded_BTD: Tensor,
    frame_lengths_B: Tensor,
    config: BeamConfig | None = None,
    lexicon: Lexicon | None = None,
) -> list[TokenPath]:
    """The best path of each utterance; frames past its length count for nothing. Without a lexicon any tokens do."""
    config = config or BeamConfig()
    batch, num_frames, _ = encoded_BTD.shape
    device, joiner = encoded_BTD.device, model.joiner
    lexicon = lexicon or Lexicon.free(joiner.output.out_features)
    projected_BTJ = joiner.encoder_projection(encoded_BTD)
    context_BS2 = torch.zeros(batch, config.num_states, CONTEXT_SIZE, dtype=torch.long, device=device)
    total_BS = torch.full((batch, config.num_states), DEAD, dtype=torch.double, device=device)
    total_BS[:, 0] = 0.0
    bonus_BS = torch.zeros_like(total_BS)
    node_BS = torch.full_like(total_BS, lexicon.start(), dtype=torch.long)
    stay_BS = torch.arange(config.num_states, device=device).expand(batch, -1)
    sources, tokens = [], []
    for t in range(num_frames):
        inside_B1 = (t < frame_lengths_B)[:, None]
        alive = (inside_B1 & (total_BS > DEAD)).nonzero(as_tuple=True)  # the others are not looked at
        predicted_XJ = joiner.predictor_projection(model.predict_context(context_BS2[alive]))
        log_probs_XV = joiner.join(projected_BTJ[alive[0], t], predicted_XJ).log_softmax(-1)
        targets_XV, bonuses_XV = map(torch.from_numpy, lexicon.rows(node_BS[alive].cpu().numpy()))
        shape = (*total_BS.shape, log_probs_XV.shape[1])
        targets_BSV = targets_XV.new_zeros(shape, device=device).index_put_(alive, targets_XV.to(device))
        bonuses_BSV = bonuses_XV.new_zeros(shape, device=device).index_put_(alive, bonuses_XV.to(device))
        total_XV = total_BS[alive][:, None] + log_probs_XV + bonuses_XV.to(device)
        total_BSV = total_BS.new_full(shape, DEAD).index_put_(alive, total_XV)
        best_BS, source_BS, token_BS = merged(total_BSV, context_BS2, targets_BSV)
        best_BS = best_BS.masked_fill(best_BS < best_BS[:, :1] - config.beam, DEAD)
        source_BS = torch.where(inside_B1, source_BS, stay_BS)
        token_BS = torch.where(inside_B1, token_BS, BLANK_ID)
        total_BS = torch.where(inside_B1, best_BS, total_BS)
        flat_BS = source_BS * total_BSV.shape[2] + token_BS
        bonus_BS = bonus_BS.gather(1, source_BS) + bonuses_BSV.flatten(1).gather(1, flat_BS)
        node_BS = torch.where(inside_B1, targets_BSV.flatten(1).gather(1, flat_BS), node_BS)
        context_BS2 = next_context(context_BS2, source_BS, token_BS)
        sources.append(source_BS)
        tokens.append(token_BS)
    finals_X = torch.from_numpy(lexicon.finals(node_BS.flatten().cpu().numpy()))
    finals_BS = finals_X.to(device).unflatten(0, node_BS.shape)
    bonus_BS = bonus_BS + finals_BS
    ended_B, winner_B = (total_BS + finals_BS).max(1)
    won_B = bonus_BS.gather(1, winner_B[:, None])[:, 0]
    return _traced(sources, tokens, winner_B, (ended_B - won_B).tolist(), won_B.tolist())


def merged(total_BSV: Tensor, context_BS2: Tensor, targets_BSV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(total_BS, source_BS, token_BS): the best S among candidates (state, next token), each pair of last two tokens
    and node once, best first.

    One pair comes from a state at most by a label, and from one state by a blank: S + 1 times, so that the best S of
    them are among the best S * S candidates.
    """
    _, num_states, num_tokens = total_BSV.shape
    count = min(num_states**2, num_states * num_tokens)
    total_BM, flat_BM = total_BSV.flatten(1).topk(count)
    source_BM, token_BM = flat_BM // num_tokens, flat_BM % num_tokens
    older_BM, newer_BM = next_context(context_BS2, source_BM, token_BM).unbind(-1)
    key_BM = (targets_BSV.flatten(1).gather(1, flat_BM) * num_tokens + older_BM) * num_tokens + newer_BM
    sorted_BM, order_BM = key_BM.sort(stable=True)  # of equal keys the best candidate comes first
    again_BM = torch.zeros_like(sorted_BM, dtype=torch.bool)
    again_BM[:, 1:] = sorted_BM[:, 1:] == sorted_BM[:, :-1]
    total_BM = total_BM.masked_fill(again_BM.scatter(1, order_BM, again_BM), DEAD)
    total_BS, place_BS = total_BM.topk(num_states)
    return total_BS, source_BM.gather(1, place_BS), token_BM.gather(1, place_BS)


def next_context(context_BS2: Tensor, source_BM: Tensor, token_BM: Tensor) -> Tensor:
    """The last two tokens (B, M, 2) of states `source_BM` after `token_BM`."""
    before_BM2 = context_BS2.gather(1, source_BM[..., None].expand(-1, -1, CONTEXT_SIZE))
    after_BM2 = torch.stack([before_BM2[..., 1], token_BM], -1)
    return torch.where((token_BM != BLANK_ID)[..., None], after_BM2, before_BM2)


def _traced(
    sources: list[Tensor], tokens: list[Tensor], state_B: Tensor, log_probs: list[float], bonuses: list[float]
) -> list[TokenPath]:
    """The paths that end in each utterance's state of `state_B`, read from the last frame back."""
    if not sources:
        return [TokenPath.of([], *each) for each in zip(log_probs, bonuses, strict=True)]
    rows_B = torch.arange(len(state_B), device=state_B.device)
    symbols = []
    for source_BS, token_BS in zip(reversed(sources), reversed(tokens), strict=True):
        symbols.append(token_BS[rows_B, state_B])
        state_B = source_BS[rows_B, state_B]
    symbols_BT = torch.stack(symbols[::-1], 1).tolist()
    return [TokenPath.of(*each) for each in zip(symbols_BT, log_probs, bonuses, strict=True)]
