"""The beam search of decoding/beam.py, compiled: joiner, bias, lexicon, pruning and merging of 80 ms in one call.

    search = FastBeamSearch(weights, BeamConfig(), trie, lexicon)
    state = search.advance(search.initial(), encoded_TD)  # as often as frames come
    lattice = search.finish(state)

The interface and, within float rounding, the numbers of `BeamSearch` (with a `BiasedLexicon` where bias and lexicon are
both there), which is the reference; arcs and states come in the same order. A state carries what the predictor says
after its tokens. State goes in and out and is never changed in place.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import BLANK_ID, TokenLattice
from pipeline.runtime.fast_lattice import FrameArcs, near_best
from pipeline.runtime.fast_nodes import Trie, Words, candidates, final, word_final
from pipeline.runtime.fast_step import compiled, log_sum_exp, predict, product, product_many, tanh
from pipeline.runtime.fast_weights import Matrix, SearchWeights, nameless
from pipeline.runtime.tensors import CONTEXT_SIZE


class Memo(NamedTuple):
    """What the predictor said lately, N places of two tokens each: a name begun in one frame is begun in the next too.

    Written by the compiled search, and no more than speed: who shares it finds what he would find alone.
    """

    keys_N: np.ndarray
    predicted_NJ: np.ndarray

    @classmethod
    def of(cls, weights: SearchWeights, num_places: int = 2048) -> "Memo":
        """Empty; a released model's takes a megabyte."""
        width = len(weights.predictor_projection.scale_R)
        return cls(np.full(num_places, -1, np.int64), np.empty((num_places, width), np.float32))


class FastBeamState(NamedTuple):
    """S states, best first: last tokens, node of the bias, that of the lexicon, predictor's part of the joiner's sum,
    score + bonus.

    `best`: the one that would win if the search ended now; `moves_2S`: source and token of the best arc into each;
    `blank`: P(blank) before the best; `frames`: arcs so far.
    """

    contexts_S2: np.ndarray
    nodes_S: np.ndarray
    words_S: np.ndarray
    predicted_SJ: np.ndarray
    totals_S: np.ndarray
    moves_2S: np.ndarray
    best: int = 0
    blank: float = 0.0
    frames: tuple[FrameArcs, ...] = ()

    @property
    def moves(self) -> Iterable[tuple[int, int]]:
        """(source, token) of the best arc into each state in the last frame."""
        return zip(*self.moves_2S.tolist(), strict=True)


@dataclass(frozen=True)
class FastBeamSearch:
    """Weights, the limits of the search, bias and lexicon or None. Holds no stream: any number may share it.

    Raises ValueError for a lexicon of more or fewer tokens than the model's: compiled code does not look.
    """

    weights: SearchWeights
    config: BeamConfig
    bias: BiasTrie | None = None
    lexicon: Lexicon | None = None
    shared_memo: Memo | None = field(default=None, repr=False, compare=False)

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
    def memo(self) -> Memo:
        """The shared one, or its own."""
        return self.shared_memo or Memo.of(self.weights)

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
        return FastBeamState(
            contexts_12, roots_1, roots_1, predicted_1J, np.zeros(1), np.zeros((2, 1), np.int64)
        )

    def advance(self, state: FastBeamState, encoded_TD: np.ndarray) -> FastBeamState:
        """The state after T more frames (float32) of one utterance (T may be 0)."""
        for encoded_D in encoded_TD:
            *states, best, blank, places_3A, scores_2A = _frame(
                encoded_D,
                state.contexts_S2,
                state.nodes_S,
                state.words_S,
                state.predicted_SJ,
                state.totals_S,
                (self.config.num_states, self.config.num_owing, self.config.num_alike),
                self.config.beam,
                self.memo,
                *self.nameless,
            )
            state = FastBeamState(*states, best, blank, (*state.frames, FrameArcs(places_3A, scores_2A)))
        return state

    def best_state(self, state: FastBeamState) -> int:
        """The state that would win if the search ended now, with what bias and lexicon take back."""
        return state.best

    def blank_posterior(self, state: FastBeamState) -> float:
        """P(blank) in the last frame, after the context from which the best state came; 0 where it was pruned."""
        return state.blank

    def finish(self, state: FastBeamState) -> TokenLattice:
        """The lattice of all frames so far; `state` stays usable."""
        frames = tuple(arcs.tokens() for arcs in state.frames)
        return TokenLattice(frames, tuple(self._final_bonuses(state).tolist()))

    def lattice(self, state: FastBeamState, beam: float) -> TokenLattice:
        """Of `finish`, the arcs on a path at most `beam` nats worse than the best."""
        return near_best(state.frames, self._final_bonuses(state), beam)

    def _final_bonuses(self, state: FastBeamState) -> np.ndarray:
        return self.trie.finals(state.nodes_S) + self.words.finals(state.words_S)


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
    memo,
    nameless_trie,
    nameless_words,
    nameless_weights,
):
    """One frame -> (arrays of the next `FastBeamState`, best, blank, arcs (source, target, token), their two scores).

    `limits`: how many states are kept that owe nothing, how many that do, and of these with the same node.
    """
    trie, words = Trie(*nameless_trie), Words(*nameless_words)
    weights = _named(nameless_weights)
    acoustic_SV = _acoustic(encoded_D, contexts_S2, predicted_SJ, weights)
    found = candidates(totals_S, acoustic_SV, nodes_S, words_S, beam, trie, words)
    count = len(found.total_X)
    most = min(limits[0] + limits[1], count)
    contexts_K2 = np.empty((most, 2), np.int64)
    nodes_K, words_K = np.empty(most, np.int64), np.empty(most, np.int64)
    predicted_KJ = np.empty((most, predicted_SJ.shape[1]), np.float32)
    totals_K, moves_2K = np.empty(most, np.float64), np.empty((2, most), np.int64)
    has_blank_S = np.zeros(len(totals_S), np.bool_)
    places_3X, scores_2X = np.empty((3, count), np.int64), np.empty((2, count), np.float64)
    num_kept, num_owing, num_arcs = 0, 0, 0
    for x in range(count):
        source, token, node, word, owes = found.places_X5[x]
        full = num_owing == limits[1] if owes else num_kept - num_owing == limits[0]
        older, newer = contexts_S2[source, 0], contexts_S2[source, 1]
        if token != BLANK_ID:
            older, newer = newer, token
        target = 0
        while target < num_kept and (
            contexts_K2[target, 1] != newer
            or contexts_K2[target, 0] != older
            or nodes_K[target] != node
            or words_K[target] != word
        ):
            target += 1
        if target == num_kept:
            if full or (owes and _count(node, nodes_K[:num_kept]) >= limits[2]):
                continue
            contexts_K2[target, 0], contexts_K2[target, 1] = older, newer
            nodes_K[target], words_K[target] = node, word
            same = _first_with(older, newer, contexts_S2)
            if same < len(contexts_S2):
                predicted_KJ[target] = predicted_SJ[same]
            else:
                _remember(contexts_K2[target], predicted_KJ[target], memo, weights)
            # The first to arrive is the best.
            moves_2K[0, target], moves_2K[1, target] = source, token
            totals_K[target] = found.total_X[x]
            num_kept += 1
            num_owing += owes
        places_3X[0, num_arcs], places_3X[1, num_arcs], places_3X[2, num_arcs] = source, target, token
        scores_2X[0, num_arcs], scores_2X[1, num_arcs] = acoustic_SV[source, token], found.bonus_X[x]
        has_blank_S[source] |= token == BLANK_ID
        num_arcs += 1
    best, highest = 0, -np.inf
    for k in range(num_kept):
        total = totals_K[k] + (final(nodes_K[k], trie) + word_final(words_K[k], words))
        if total > highest:
            best, highest = k, total
    came_from = moves_2K[0, best]
    blank = min(1.0, np.exp(np.float64(acoustic_SV[came_from, BLANK_ID]))) if has_blank_S[came_from] else 0.0
    return (
        contexts_K2[:num_kept].copy(),
        nodes_K[:num_kept].copy(),
        words_K[:num_kept].copy(),
        predicted_KJ[:num_kept].copy(),
        totals_K[:num_kept].copy(),
        moves_2K[:, :num_kept].copy(),
        best,
        blank,
        places_3X[:, :num_arcs].copy(),
        scores_2X[:, :num_arcs].copy(),
    )


@compiled
def _count(node, nodes_K):
    count = 0
    for other in nodes_K:
        count += other == node
    return count


@compiled
def _remember(context_2, predicted_J, memo, weights):
    """`predict` into `predicted_J`, from the memo where it is there; it costs more than all else about a new state."""
    keys_N, predicted_NJ = memo
    key = context_2[0] * len(weights.output_bias_V) + context_2[1]
    place = (31 * context_2[0] + context_2[1]) % len(keys_N)
    if keys_N[place] != key:
        keys_N[place] = key
        predicted_NJ[place] = predict(context_2, weights)
    predicted_J[:] = predicted_NJ[place]


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
    log_prob_CV -= log_sum_exp(log_prob_CV).reshape(-1, 1)
    return log_prob_CV[row_S]
