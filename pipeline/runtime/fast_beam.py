"""The beam search of decoding/beam.py, compiled: joiner, bias, lexicon, pruning and merging of 80 ms in one call.

    search = FastBeamSearch(weights, BeamConfig(), trie, lexicon)
    state = search.advance(search.initial(), encoded_TD)  # as often as frames come
    lattice = search.finish(state)

The interface and, within float rounding, the numbers of `BeamSearch` (with a `BiasedLexicon` where bias and lexicon are
both there), which is the reference; arcs and states come in the same order. A state carries what the predictor says
after its tokens, so that nothing is cached. State goes in and out and is never changed in place.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import BLANK_ID, TokenArc, TokenLattice
from pipeline.runtime.fast_step import compiled, predict, product, product_many, tanh
from pipeline.runtime.fast_weights import Matrix, SearchWeights, nameless
from pipeline.runtime.tensors import CONTEXT_SIZE


class Trie(NamedTuple):
    """The arrays of a `BiasTrie`, as the compiled search reads them."""

    keys_A: np.ndarray
    targets_A: np.ndarray
    root_targets: np.ndarray
    credit_G: np.ndarray
    pending_G: np.ndarray
    begins_V: np.ndarray


class Words(NamedTuple):
    """The arrays of a `Lexicon`, as the compiled search reads them."""

    first_arc_G: np.ndarray
    tokens_A: np.ndarray
    targets_A: np.ndarray
    class_G: np.ndarray
    emission_G: np.ndarray
    root_targets_V: np.ndarray
    begins_V: np.ndarray
    ahead_HG: np.ndarray
    ends_HK: np.ndarray
    newest_H: np.ndarray
    next_KK: np.ndarray


class FastBeamState(NamedTuple):
    """S states, best first: last tokens, node of the bias, that of the lexicon, predictor's part of the joiner's sum,
    score + bonus.

    `best`: the one that would win if the search ended now; `frames`: arcs so far.
    """

    contexts_S2: np.ndarray
    nodes_S: np.ndarray
    words_S: np.ndarray
    predicted_SJ: np.ndarray
    totals_S: np.ndarray
    best: int = 0
    frames: tuple[tuple[TokenArc, ...], ...] = ()


@dataclass(frozen=True)
class FastBeamSearch:
    """Weights, the limits of the search, bias and lexicon or None. Holds no stream: any number may share it.

    Raises ValueError for a lexicon of more or fewer tokens than the model's: compiled code does not look.
    """

    weights: SearchWeights
    config: BeamConfig
    bias: BiasTrie | None = None
    lexicon: Lexicon | None = None

    def __post_init__(self):
        num_tokens = len(self.weights.output_bias_V)
        if self.lexicon and len(self.lexicon.begins_V) != num_tokens:
            raise ValueError(
                f"the lexicon is of {len(self.lexicon.begins_V)} tokens, the model of {num_tokens}"
            )

    @cached_property
    def trie(self) -> BiasTrie:
        """The bias; without one, a trie that never pays."""
        return self.bias or _no_phrases()

    @cached_property
    def words(self) -> Lexicon:
        """The lexicon; without one, one that costs nothing."""
        return self.lexicon or Lexicon.free(len(self.weights.output_bias_V))

    @cached_property
    def nameless(self) -> tuple[tuple, tuple, tuple]:
        trie = tuple(getattr(self.trie, name) for name in Trie._fields)
        words = tuple(getattr(self.words, name) for name in Words._fields)
        return trie, words, nameless(self.weights)

    def initial(self) -> FastBeamState:
        """Before the first frame: one state, blanks as context."""
        contexts_12 = np.zeros((1, CONTEXT_SIZE), np.int64)
        predicted_1J = predict(contexts_12[0], self.weights)[None]
        roots_1 = np.zeros(1, np.int64)
        return FastBeamState(contexts_12, roots_1, roots_1, predicted_1J, np.zeros(1))

    def advance(self, state: FastBeamState, encoded_TD: np.ndarray) -> FastBeamState:
        """The state after T more frames (float32) of one utterance (T may be 0)."""
        for encoded_D in encoded_TD:
            *found, best, places_3A, scores_2A = _frame(
                encoded_D,
                state.contexts_S2,
                state.nodes_S,
                state.words_S,
                state.predicted_SJ,
                state.totals_S,
                (self.config.num_states, self.config.num_owing),
                self.config.beam,
                *self.nameless,
            )
            arcs = tuple(map(TokenArc, *places_3A.tolist(), *scores_2A.tolist()))
            state = FastBeamState(*found, best, (*state.frames, arcs))
        return state

    def best_state(self, state: FastBeamState) -> int:
        """The state that would win if the search ended now, with what bias and lexicon take back."""
        return state.best

    def finish(self, state: FastBeamState) -> TokenLattice:
        """The lattice of all frames so far; `state` stays usable."""
        finals_S = self.trie.finals(state.nodes_S) + self.words.finals(state.words_S)
        return TokenLattice(state.frames, tuple(finals_S.tolist()))


@cache
def _no_phrases() -> BiasTrie:
    return BiasTrie.build([])


@compiled
def _frame(
    encoded_D,
    contexts_S2,
    nodes_S,
    words_S,
    predicted_SJ,
    totals_S,
    limits,
    beam,
    nameless_trie,
    nameless_words,
    nameless_weights,
):
    """One frame -> (the arrays of the next `FastBeamState`, best, arcs (source, target, token), their two scores).

    `limits`: how many states are kept that owe nothing, and how many that do.
    """
    trie, words = Trie(*nameless_trie), Words(*nameless_words)
    weights = _named(nameless_weights)
    acoustic_SV = _acoustic(encoded_D, contexts_S2, predicted_SJ, weights)
    bonus_SV, owes_SV = _bonuses(nodes_S, acoustic_SV.shape[1], trie)
    bonus_SV += _costs(words_S, acoustic_SV.shape[1], words)
    flat_X = _best_first(totals_S, acoustic_SV, bonus_SV, owes_SV, beam)
    count, num_tokens = len(flat_X), acoustic_SV.shape[1]
    most = min(limits[0] + limits[1], count)
    contexts_K2 = np.empty((most, 2), np.int64)
    nodes_K, words_K = np.empty(most, np.int64), np.empty(most, np.int64)
    predicted_KJ = np.empty((most, predicted_SJ.shape[1]), np.float32)
    totals_K = np.empty(most, np.float64)
    places_3X, scores_2X = np.empty((3, count), np.int64), np.empty((2, count), np.float64)
    num_kept, num_owing, num_arcs = 0, 0, 0
    is_last_V = np.zeros(num_tokens, np.bool_)
    is_last_V[BLANK_ID] = True
    for flat in flat_X:
        source, token = flat // num_tokens, flat % num_tokens
        owes = owes_SV[source, token]
        full = num_owing == limits[1] if owes else num_kept - num_owing == limits[0]
        if full and not is_last_V[token]:
            continue  # most candidates end here, at little cost
        older, newer = contexts_S2[source, 0], contexts_S2[source, 1]
        node, word = nodes_S[source], words_S[source]
        if token != BLANK_ID:
            older, newer = newer, token
            node, word = _target(node, token, trie), _word_target(word, token, words)
        target = 0
        while target < num_kept and (
            contexts_K2[target, 1] != newer
            or contexts_K2[target, 0] != older
            or nodes_K[target] != node
            or words_K[target] != word
        ):
            target += 1
        if target == num_kept:
            if full:
                continue
            contexts_K2[target, 0], contexts_K2[target, 1] = older, newer
            nodes_K[target], words_K[target] = node, word
            is_last_V[newer] = True
            same = _first_with(older, newer, contexts_S2)
            if same < len(contexts_S2):
                predicted_KJ[target] = predicted_SJ[same]
            else:  # costs more than all else about a new state
                predicted_KJ[target] = predict(contexts_K2[target], weights)
            # The first to arrive is the best.
            totals_K[target] = totals_S[source] + acoustic_SV[source, token] + bonus_SV[source, token]
            num_kept += 1
            num_owing += owes
        places_3X[0, num_arcs], places_3X[1, num_arcs], places_3X[2, num_arcs] = source, target, token
        scores_2X[0, num_arcs], scores_2X[1, num_arcs] = acoustic_SV[source, token], bonus_SV[source, token]
        num_arcs += 1
    best, highest = 0, -np.inf
    for k in range(num_kept):
        total = totals_K[k] + (_final(nodes_K[k], trie) + _word_final(words_K[k], words))
        if total > highest:
            best, highest = k, total
    return (
        contexts_K2[:num_kept].copy(),
        nodes_K[:num_kept].copy(),
        words_K[:num_kept].copy(),
        predicted_KJ[:num_kept].copy(),
        totals_K[:num_kept].copy(),
        best,
        places_3X[:, :num_arcs],
        scores_2X[:, :num_arcs],
    )


@compiled
def _named(nameless_weights):
    projection, projection_bias, mixed_2VP, predictor, output, output_bias = nameless_weights
    return SearchWeights(
        Matrix(projection[0], projection[1]),
        projection_bias,
        mixed_2VP,
        Matrix(predictor[0], predictor[1]),
        Matrix(output[0], output[1]),
        output_bias,
    )


@compiled
def _first_with(older, newer, contexts_S2):
    """The first state after these two tokens, S where there is none."""
    s = 0
    while s < len(contexts_S2) and (contexts_S2[s, 1] != newer or contexts_S2[s, 0] != older):
        s += 1
    return s


@compiled
def _acoustic(encoded_D, contexts_S2, predicted_SJ, weights):
    """log P(token | frame, context) in nats (S, V); states that differ in the bias alone share a row's work."""
    num_states, width = predicted_SJ.shape
    projected_J = product(weights.encoder_projection, encoded_D) + weights.encoder_projection_bias_J
    row_S, hidden_CJ, num_rows = np.empty(num_states, np.int64), np.empty((num_states, width), np.float32), 0
    for s in range(num_states):
        earlier = _first_with(contexts_S2[s, 0], contexts_S2[s, 1], contexts_S2)
        if earlier < s:
            row_S[s] = row_S[earlier]
        else:
            row_S[s] = num_rows
            hidden_CJ[num_rows] = tanh(projected_J + predicted_SJ[s])
            num_rows += 1
    log_prob_CV = product_many(weights.output, hidden_CJ[:num_rows]) + weights.output_bias_V
    for c in range(num_rows):
        highest, total = log_prob_CV[c].max(), np.float32(0)
        for logit in log_prob_CV[c]:
            total += np.exp(logit - highest)
        log_prob_CV[c] -= highest + np.log(total)
    return log_prob_CV[row_S]


@compiled
def _bonuses(nodes_S, num_tokens, trie):
    """What each token earns after each node (S, V), and whether the node that it leads to owes (S, V)."""
    stride = len(trie.root_targets)
    bonus_SV = np.zeros((len(nodes_S), num_tokens), np.float64)
    owes_SV = np.zeros((len(nodes_S), num_tokens), np.bool_)
    if len(trie.credit_G) == 1:
        return bonus_SV, owes_SV  # no phrases
    credit_V, root_owes_V = np.empty(num_tokens, np.float64), np.empty(num_tokens, np.bool_)
    for token in range(num_tokens):
        target = trie.root_targets[min(token, stride - 1)]
        credit_V[token], root_owes_V[token] = trie.credit_G[target], _owes(target, trie)
    for s in range(len(nodes_S)):
        node, bonus_V = nodes_S[s], bonus_SV[s]
        bonus_V[:], owes_SV[s, :] = credit_V, root_owes_V
        arc = np.searchsorted(trie.keys_A, node * stride)
        while trie.keys_A[arc] < (node + 1) * stride:
            token, target = trie.keys_A[arc] - node * stride, trie.targets_A[arc]
            if token < num_tokens:
                bonus_V[token], owes_SV[s, token] = trie.credit_G[target], _owes(target, trie)
            arc += 1
        lent, pending = trie.credit_G[node], trie.pending_G[node]
        bonus_V -= lent
        if pending != 0.0:
            for token in range(num_tokens):
                if trie.begins_V[min(token, len(trie.begins_V) - 1)]:
                    bonus_V[token] += pending
        bonus_V[BLANK_ID], owes_SV[s, BLANK_ID] = 0.0, _owes(node, trie)
    return bonus_SV, owes_SV


@compiled
def _costs(words_S, num_tokens, words):
    """What each token earns after each node of the lexicon (S, V)."""
    num_places = len(words.class_G)
    unknown = num_places - 1
    cost_SV = np.empty((len(words_S), num_tokens), np.float64)
    for s in range(len(words_S)):
        history, place, cost_V = words_S[s] // num_places, words_S[s] % num_places, cost_SV[s]
        left, after = _word_ends(history, place, words)
        here, ahead_G, begun_G = (
            words.ahead_HG[history, place],
            words.ahead_HG[history],
            words.ahead_HG[after],
        )
        strays = 0.0 if place == unknown else np.float64(ahead_G[unknown]) - here
        for token in range(num_tokens):
            cost_V[token] = left + begun_G[words.root_targets_V[token]] if words.begins_V[token] else strays
        for arc in range(words.first_arc_G[place], words.first_arc_G[place + 1]):
            cost_V[words.tokens_A[arc]] = np.float64(ahead_G[words.targets_A[arc]]) - here
        cost_V[BLANK_ID] = 0.0
    return cost_SV


@compiled
def _word_ends(history, place, words):
    """(bonus still due when the word at `place` ends, the history then)."""
    if place == 0:
        return 0.0, history  # no word yet
    kind = words.class_G[place]
    due = np.float64(words.ends_HK[history, kind]) + words.emission_G[place] - words.ahead_HG[history, place]
    return due, words.next_KK[words.newest_H[history], kind]


@compiled
def _word_final(word, words):
    """The last bonus of an utterance that ends at the lexicon's node `word`."""
    left, after = _word_ends(word // len(words.class_G), word % len(words.class_G), words)
    return left + words.ends_HK[after, 0]


@compiled
def _word_target(word, token, words):
    """Where `token`, no blank, leads from the lexicon's node `word`."""
    num_places = len(words.class_G)
    history, place = word // num_places, word % num_places
    if words.begins_V[token]:
        return _word_ends(history, place, words)[1] * num_places + words.root_targets_V[token]
    first, last = words.first_arc_G[place], words.first_arc_G[place + 1]
    arc = first + np.searchsorted(words.tokens_A[first:last], token)
    known = arc < last and words.tokens_A[arc] == token
    return history * num_places + (words.targets_A[arc] if known else num_places - 1)


@compiled
def _owes(node, trie):
    """Whether `node` holds credit of a phrase that is not finished."""
    return trie.credit_G[node] > trie.pending_G[node]


@compiled
def _final(node, trie):
    """What the end takes back after `node`."""
    return trie.pending_G[node] - trie.credit_G[node]


@compiled
def _target(node, token, trie):
    """Where `token`, no blank, leads from `node`."""
    stride = len(trie.root_targets)
    token = min(token, stride - 1)
    key = node * stride + token
    arc = np.searchsorted(trie.keys_A, key)
    return trie.targets_A[arc] if trie.keys_A[arc] == key else trie.root_targets[token]


@compiled
def _best_first(totals_S, acoustic_SV, bonus_SV, owes_SV, beam):
    """Places s V + v whose sum lies within `beam` of the best that owes nothing, or above it.

    The best first, equal ones in the order of places.
    """
    num_states, num_tokens = acoustic_SV.shape
    total_X, best = np.empty(num_states * num_tokens, np.float64), -np.inf
    for s in range(num_states):
        for token in range(num_tokens):
            total = totals_S[s] + acoustic_SV[s, token] + bonus_SV[s, token]
            total_X[s * num_tokens + token] = total
            if total > best and not owes_SV[s, token]:
                best = total
    flat_X = np.flatnonzero(total_X >= best - beam)
    return flat_X[np.argsort(-total_X[flat_X], kind="mergesort")]
