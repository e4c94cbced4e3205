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
        utterance_X, state_X = (inside_B1 & (total_BS > DEAD)).nonzero(as_tuple=True)
        context_X2 = context_BS2[utterance_X, state_X]
        predicted_XJ = joiner.predictor_projection(model.predict_context(context_X2))
        log_probs_XV = joiner.join(projected_BTJ[utterance_X, t], predicted_XJ).log_softmax(-1)
        rows = lexicon.rows(node_BS[utterance_X, state_X].cpu().numpy())
        targets_XV, bonuses_XV = (torch.from_numpy(array).to(device) for array in rows)
        total_XV = total_BS[utterance_X, state_X][:, None] + log_probs_XV + bonuses_XV
        best_B = total_BS.new_full((batch,), DEAD).scatter_reduce(0, utterance_X, total_XV.amax(1), "amax")
        x_C, token_C = (total_XV >= (best_B - config.beam)[utterance_X, None]).nonzero(as_tuple=True)
        total_C, node_C, context_C2 = total_XV[x_C, token_C], targets_XV[x_C, token_C], context_X2[x_C]
        after_C2 = torch.stack([context_C2[:, 1], token_C], 1)
        context_C2 = torch.where(token_C[:, None] != BLANK_ID, after_C2, context_C2)
        keys_C4 = torch.stack([utterance_X[x_C], node_C, *context_C2.unbind(1)], 1)
        chosen_Y, place_Y = merged(total_C, keys_C4, config.num_states)
        x_Y, token_Y = x_C[chosen_Y], token_C[chosen_Y]
        there = utterance_X[x_Y], place_Y
        source_BS = stay_BS.index_put(there, state_X[x_Y])
        token_BS = torch.full_like(stay_BS, BLANK_ID).index_put(there, token_Y)
        bonus_BS = bonus_BS.gather(1, source_BS).index_put(there, bonuses_XV[x_Y, token_Y], accumulate=True)
        total_BS = total_BS.masked_fill(inside_B1, DEAD).index_put(there, total_C[chosen_Y])
        node_BS = node_BS.index_put(there, node_C[chosen_Y])
        context_BS2 = context_BS2.index_put(there, context_C2[chosen_Y])
        sources.append(source_BS)
        tokens.append(token_BS)
    finals_X = torch.from_numpy(lexicon.finals(node_BS.flatten().cpu().numpy()))
    finals_BS = finals_X.to(device).unflatten(0, node_BS.shape)
    bonus_BS = bonus_BS + finals_BS
    ended_B, winner_B = (total_BS + finals_BS).max(1)
    won_B = bonus_BS.gather(1, winner_B[:, None])[:, 0]
    return _traced(sources, tokens, winner_B, (ended_B - won_B).tolist(), won_B.tolist())


def merged(total_C: Tensor, keys_C4: Tensor, num_states: int) -> tuple[Tensor, Tensor]:
    """(chosen_Y, place_Y): of candidates with equal keys the best one, of these the best `num_states` of each
    utterance, and which of them each is, the best 0. A key is (utterance, node, last two tokens).
    """
    order_C = total_C.argsort(descending=True, stable=True)  # of equals, the first state's first token
    key_C = keys_C4[:, 0]
    for column_C in keys_C4[:, 1:].unbind(1):
        key_C = key_C * (column_C.max() + 1) + column_C
    by_key_C = key_C[order_C].argsort(stable=True)
    first_C = torch.ones_like(by_key_C, dtype=torch.bool)
    sorted_C = key_C[order_C][by_key_C]
    first_C[1:] = sorted_C[1:] != sorted_C[:-1]
    best_Y = order_C[by_key_C[first_C].sort().values]
    best_Y = best_Y[keys_C4[best_Y, 0].argsort(stable=True)]
    utterance_Y, row_Y = keys_C4[best_Y, 0], torch.arange(len(best_Y), device=best_Y.device)
    place_Y = row_Y - torch.searchsorted(utterance_Y, utterance_Y)
    kept_Y = place_Y < num_states
    return best_Y[kept_Y], place_Y[kept_Y]


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
