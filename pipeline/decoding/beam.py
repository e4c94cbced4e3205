"""Frame-synchronous beam search, at most one token per 80 ms frame; it leaves a lattice behind.

A state is (last two tokens, node of the bias, which may be phrases, a lexicon, or both). The predictor sees no more
than two tokens, so that hypotheses in one state have one future and merge exactly (Prabhavalkar et al. 2021, arXiv
2012.06749): the better one gives the state its score, and both arcs stay in the lattice. With one state this is the
greedy search.

    search = BeamSearch(model, BeamConfig())
    state = search.advance(search.initial(), encoded_TD)  # as often as frames come
    lattice = search.finish(state)

State goes in and out and is never changed in place; `finish` may be asked at any time and gone on from. One frame is
computed at a time, so that results do not depend, to the last bit, on how the frames were cut into chunks.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.decoding.search import BeamConfig, Bias, RowBias
from pipeline.decoding.token_lattice import BLANK_ID, TokenArc, TokenLattice, near_best
from pipeline.decoding.trail import blank_posterior, moves_of
from pipeline.models.predictor import CONTEXT_SIZE
from pipeline.models.transducer import Transducer

MAX_CACHED = 4096  # predictor outputs and bias rows that a stream remembers


class Key(NamedTuple):
    """Hypotheses with equal keys merge."""

    context: tuple[int, ...]
    node: Hashable


class BiasRow(NamedTuple):
    """Where each of V tokens leads from a node, its bonus, what is unfinished there, and whether anything is."""

    nodes: tuple[Hashable, ...]
    bonus_V: np.ndarray
    unfinished: tuple[Hashable | None, ...]
    owes_V: np.ndarray


@dataclass(frozen=True)
class BeamState:
    """`keys` and `totals` (Viterbi, score + bonus): the states, best first; `frames`: arcs so far; the rest: caches."""

    keys: tuple[Key, ...]
    totals: tuple[float, ...] = (0.0,)
    frames: tuple[tuple[TokenArc, ...], ...] = ()
    predicted: Mapping[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)
    biased: Mapping[Hashable, BiasRow] = field(default_factory=dict, repr=False)

    @property
    def moves(self) -> list[tuple[int, int]]:
        """(source, token) of the best arc into each state in the last frame."""
        return moves_of(self.frames[-1])


@dataclass(frozen=True)
class BeamSearch:
    """A model, the limits of the search, and a bias or None. Holds no stream: any number may share it."""

    model: Transducer
    config: BeamConfig
    bias: Bias | None = None

    def initial(self) -> BeamState:
        """Before the first frame: one state, blanks as context."""
        return BeamState((Key((BLANK_ID,) * CONTEXT_SIZE, self.bias.start() if self.bias else None),))

    @torch.no_grad()
    def advance(self, state: BeamState, encoded_TD: Tensor | np.ndarray) -> BeamState:
        """The state after T more frames of one utterance (T may be 0)."""
        encoded_TD = torch.as_tensor(encoded_TD)
        for t in range(len(encoded_TD)):
            state = self._frame(state, encoded_TD[t : t + 1])
        return state

    def best_state(self, state: BeamState) -> int:
        """The state that would win if the search ended now, with what the bias takes back."""
        if self.bias is None:
            return 0
        pairs = zip(state.keys, state.totals, strict=True)
        totals = [total + self.bias.final(key.node) for key, total in pairs]
        return totals.index(max(totals))

    def blank_posterior(self, state: BeamState) -> float:
        """See `trail.blank_posterior`, of the best state."""
        return blank_posterior(state.frames[-1], self.best_state(state))

    def finish(self, state: BeamState) -> TokenLattice:
        """The lattice of all frames so far; `state` stays usable."""
        bias = self.bias
        return TokenLattice(state.frames, tuple(bias.final(key.node) if bias else 0.0 for key in state.keys))

    def lattice(self, state: BeamState, beam: float) -> TokenLattice:
        """Of `finish`, the arcs on a path at most `beam` nats worse than the best."""
        return near_best(self.finish(state), beam)

    def _frame(self, state: BeamState, encoded_1D: Tensor) -> BeamState:
        predicted = self._with_predicted(state)
        contexts = list(dict.fromkeys(key.context for key in state.keys))
        predicted_CJ = torch.stack([predicted[context] for context in contexts])
        joiner = self.model.joiner
        log_probs_CV = joiner.join(joiner.encoder_projection(encoded_1D), predicted_CJ).log_softmax(-1)
        acoustic_SV = log_probs_CV.double().cpu().numpy()[[contexts.index(key.context) for key in state.keys]]
        biased = self._with_biased(state, acoustic_SV.shape[1])
        bonus_SV = np.stack([biased[key.node].bonus_V for key in state.keys])
        unfinished_S = [biased[key.node].unfinished for key in state.keys]
        owes_SV = np.stack([biased[key.node].owes_V for key in state.keys])
        totals_SV = np.array(state.totals)[:, None] + acoustic_SV + bonus_SV

        best = totals_SV.max(where=~owes_SV, initial=-np.inf)
        flat_X = np.flatnonzero(totals_SV >= best - self.config.beam)
        best_first_X = flat_X[np.argsort(-totals_SV.ravel()[flat_X], kind="stable")]
        kept: dict[Key, int] = {}
        last_tokens, totals, arcs = {BLANK_ID}, [], []
        alike: Counter[Hashable] = Counter()
        places = [self.config.num_states, self.config.num_owing]
        for flat in best_first_X.tolist():
            source, token = divmod(flat, totals_SV.shape[1])
            unfinished, owes = unfinished_S[source][token], bool(owes_SV[source, token])
            if not places[owes] and token not in last_tokens:
                continue  # most candidates end here, at little cost
            key = _next_key(state.keys[source], token, biased)
            if key not in kept:
                if not places[owes] or (owes and alike[unfinished] == self.config.num_alike):
                    continue
                places[owes] -= 1
                alike[unfinished] += 1
                kept[key] = len(kept)
                last_tokens.add(key.context[-1])
                totals.append(float(totals_SV[source, token]))  # the first to arrive is the best
            scores = float(acoustic_SV[source, token]), float(bonus_SV[source, token])
            arcs.append(TokenArc(source, kept[key], token, *scores))
        return BeamState(tuple(kept), tuple(totals), (*state.frames, tuple(arcs)), predicted, biased)

    def _with_predicted(self, state: BeamState) -> Mapping[tuple[int, ...], Tensor]:
        missing = list(dict.fromkeys(key.context for key in state.keys if key.context not in state.predicted))
        if not missing:
            return state.predicted
        if len(state.predicted) > MAX_CACHED:
            return self._with_predicted(BeamState(state.keys))
        device = self.model.joiner.output.weight.device
        predicted_XD = self.model.predict_context(torch.tensor(missing, device=device))
        rows = self.model.joiner.predictor_projection(predicted_XD)
        return {**state.predicted, **dict(zip(missing, rows, strict=True))}

    def _with_biased(self, state: BeamState, num_tokens: int) -> Mapping[Hashable, BiasRow]:
        missing = list(dict.fromkeys(key.node for key in state.keys if key.node not in state.biased))
        if not missing:
            return state.biased
        kept = state.biased if len(state.biased) <= MAX_CACHED else {}
        nodes = dict.fromkeys([*missing, *(key.node for key in state.keys)])
        return {**kept, **{node: kept.get(node) or self._row(node, num_tokens) for node in nodes}}

    def _row(self, node: Hashable, num_tokens: int) -> BiasRow:
        if self.bias is None:
            none_V = np.zeros(num_tokens)
            return BiasRow((node,) * num_tokens, none_V, (None,) * num_tokens, none_V.astype(bool))
        if isinstance(self.bias, RowBias):  # the same, all tokens at once
            nodes, bonus_V = self.bias.row(node, num_tokens)
        else:
            steps = [(node, 0.0)] + [self.bias.step(node, token) for token in range(1, num_tokens)]
            nodes, bonus_V = tuple(after for after, _ in steps), np.array([bonus for _, bonus in steps])
        unfinished = tuple(map(self.bias.unfinished, nodes))
        return BiasRow(nodes, bonus_V, unfinished, np.array([place is not None for place in unfinished]))


def _next_key(key: Key, token: int, biased: Mapping[Hashable, BiasRow]) -> Key:
    if token == BLANK_ID:
        return key
    return Key((*key.context[1:], token), biased[key.node].nodes[token])
