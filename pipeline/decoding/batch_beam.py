"""Beam search over a batch of whole utterances, best paths only: what evaluation, pseudo-labels and dev sets use.

The same search as decoding/beam.py (at most one token per 80 ms frame, hypotheses with the same last two tokens and
place in the lexicon merge, the better one gives its score; Prabhavalkar et al. 2021, arXiv 2012.06749), which is its
reference and leaves lattices behind; here the states of all utterances are one tensor. With one state and no lexicon
it is the greedy search.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import BLANK_ID, TokenPath
from pipeline.models.predictor import CONTEXT_SIZE
from pipeline.models.transducer import Transducer

DEAD = float("-inf")


class Rows(NamedTuple):
    """What the lexicon says of each state's next token: where it leads, what it earns, whether it goes on with a word
    that the lexicon has.
    """

    targets_BSV: Tensor
    bonuses_BSV: Tensor
    goes_on_BSV: Tensor


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
    projected_BT1J = joiner.encoder_projection(encoded_BTD)[:, :, None]
    context_BS2 = torch.zeros(batch, config.num_states, CONTEXT_SIZE, dtype=torch.long, device=device)
    total_BS = torch.full((batch, config.num_states), DEAD, dtype=torch.double, device=device)
    total_BS[:, 0] = 0.0
    bonus_BS = torch.zeros_like(total_BS)
    node_BS = torch.full_like(total_BS, lexicon.start(), dtype=torch.long)
    stay_BS = torch.arange(config.num_states, device=device).expand(batch, -1)
    sources, tokens = [], []
    for t in range(num_frames):
        predicted_XD = model.predict_context(context_BS2.flatten(0, 1))
        predicted_BSJ = joiner.predictor_projection(predicted_XD).unflatten(0, (batch, -1))
        log_probs_BSV = joiner.join(projected_BT1J[:, t], predicted_BSJ).log_softmax(-1)
        rows = rows_of(lexicon, node_BS)
        candidates_BSV = merged(
            total_BS[..., None] + log_probs_BSV + rows.bonuses_BSV, context_BS2, node_BS, rows
        )
        best_BS, index_BS = candidates_BSV.flatten(1).topk(config.num_states)
        best_BS = best_BS.masked_fill(best_BS < best_BS[:, :1] - config.beam, DEAD)
        inside_B1 = (t < frame_lengths_B)[:, None]
        source_BS = torch.where(inside_B1, index_BS // candidates_BSV.shape[2], stay_BS)
        token_BS = torch.where(inside_B1, index_BS % candidates_BSV.shape[2], BLANK_ID)
        total_BS = torch.where(inside_B1, best_BS, total_BS)
        flat_BS = source_BS * candidates_BSV.shape[2] + token_BS
        bonus_BS = bonus_BS.gather(1, source_BS) + rows.bonuses_BSV.flatten(1).gather(1, flat_BS)
        node_BS = rows.targets_BSV.flatten(1).gather(1, flat_BS)
        before_BS2 = context_BS2.gather(1, source_BS[..., None].expand_as(context_BS2))
        after_BS2 = torch.stack([before_BS2[..., 1], token_BS], -1)
        context_BS2 = torch.where((token_BS != BLANK_ID)[..., None], after_BS2, before_BS2)
        sources.append(source_BS)
        tokens.append(token_BS)
    incomplete_BS = ~torch.from_numpy(lexicon.complete_G).to(device)[node_BS]
    bonus_BS = bonus_BS - lexicon.penalty * incomplete_BS
    ended_B, winner_B = (total_BS - lexicon.penalty * incomplete_BS).max(1)
    won_B = bonus_BS.gather(1, winner_B[:, None])[:, 0]
    return _traced(sources, tokens, winner_B, (ended_B - won_B).tolist(), won_B.tolist())


def rows_of(lexicon: Lexicon, node_BS: Tensor) -> Rows:
    targets_XV, bonuses_XV = lexicon.rows(node_BS.flatten().cpu().numpy())
    goes_on_XV = (targets_XV != lexicon.unknown) & ~lexicon.begins_V
    arrays = targets_XV, bonuses_XV, goes_on_XV
    return Rows(*(torch.from_numpy(a).to(node_BS.device).unflatten(0, node_BS.shape) for a in arrays))


def merged(total_BSV: Tensor, context_BS2: Tensor, node_BS: Tensor, rows: Rows) -> Tensor:
    """Candidates (state, next token) with -inf for each whose last two tokens and node another one reaches at a better
    score.

    A label's candidates meet those of states with the same last token: the lexicon leads them to one node, unless the
    label goes on with a known word, for which they must come from one node. And a state that stays (blank) meets the
    label that leads from elsewhere to where it is.
    """
    before_BS, last_BS = context_BS2.unbind(-1)
    same_BSS = last_BS[:, :, None] == last_BS[:, None, :]
    same_node_BSS = same_BSS & (node_BS[:, :, None] == node_BS[:, None, :])
    strays_BSV = total_BSV.masked_fill(rows.goes_on_BSV, DEAD)
    leader_BSV = (
        same_BSS.int().argmax(-1)[..., None].expand_as(total_BSV)
    )  # the first of those that are the same
    best_BSV = torch.full_like(total_BSV, DEAD).scatter_reduce(1, leader_BSV, strays_BSV, "amax")
    lost_BSV = strays_BSV < best_BSV.gather(1, leader_BSV)
    batch_Y, state_Y, token_Y = rows.goes_on_BSV.nonzero(as_tuple=True)
    rival_YS = total_BSV[batch_Y, :, token_Y].masked_fill(~same_node_BSS[batch_Y, state_Y], DEAD)
    lost_BSV[batch_Y, state_Y, token_Y] = total_BSV[batch_Y, state_Y, token_Y] < rival_YS.amax(1)
    lost_BSV[..., BLANK_ID] = False
    # rival_BRS: the label from state R that leads to where state S is
    into_BRS = last_BS[:, None, :].expand(-1, total_BSV.shape[1], -1)
    there_BRS = rows.targets_BSV.gather(2, into_BRS) == node_BS[:, None, :]
    meets_BRS = (last_BS[:, :, None] == before_BS[:, None, :]) & (into_BRS != BLANK_ID) & there_BRS
    rival_BRS = total_BSV.gather(2, into_BRS).masked_fill(~meets_BRS, DEAD)
    blank_BS = total_BSV[..., BLANK_ID]
    lost_BSV[..., BLANK_ID] = blank_BS < rival_BRS.amax(1)
    batch_X, rival_X, state_X = (meets_BRS & (rival_BRS <= blank_BS[:, None, :])).nonzero(as_tuple=True)
    lost_BSV[batch_X, rival_X, last_BS[batch_X, state_X]] = True
    return total_BSV.masked_fill(lost_BSV, DEAD)


def _traced(
    sources: list[Tensor], tokens: list[Tensor], state_B: Tensor, log_probs: list[float], bonuses: list[float]
) -> list[TokenPath]:
    """The paths that end in each utterance's state of `state_B`, read from the last frame back."""
    if not sources:
        return [TokenPath.of([], 0.0)] * len(state_B)
    rows_B = torch.arange(len(state_B), device=state_B.device)
    symbols = []
    for source_BS, token_BS in zip(reversed(sources), reversed(tokens), strict=True):
        symbols.append(token_BS[rows_B, state_B])
        state_B = source_BS[rows_B, state_B]
    symbols_BT = torch.stack(symbols[::-1], 1).tolist()
    return [TokenPath.of(*each) for each in zip(symbols_BT, log_probs, bonuses, strict=True)]
