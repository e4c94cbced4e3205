"""The compiled search finds the states, arcs and scores of the reference, on random models, phrases and lexicons."""

import copy
import dataclasses
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.biased_lexicon import BiasedLexicon
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.endpoint_input import EndpointModelConfig
from pipeline.decoding.endpoint_model import EndpointModel
from pipeline.decoding.lexicon import Lexicon, LexiconWeights
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import best_tokens, near_best
from pipeline.runtime import fast_endpoint, fast_step
from pipeline.runtime.fast_beam import FastBeamSearch, Memo
from pipeline.runtime.fast_weights import Matrix, weights_of
from pipeline.runtime.kernels import kernels_of
from pipeline.runtime.torch_kernels import TorchKernels
from tests.reference_lexicon import drawn_lexicon, plain_lexicon
from tests.tiny_model import BLANK_BONUS, tiny_packed

WIDTH, NUM_TOKENS = 24, 48  # of the tiny model
FEW = 4  # tokens of a model that says nothing else, so that its hypotheses meet in equal tokens: 1 begins a word


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return tiny_packed(tmp_path_factory.mktemp("beam"))


@pytest.fixture(scope="module")
def fast_kernels(packed):
    return kernels_of(packed)


@pytest.fixture(scope="module")
def weights(packed):
    return weights_of(packed.contents).search


@pytest.fixture(scope="module")
def models_of_few(packed, weights):
    """(torch's, the compiled search's)."""
    model = copy.deepcopy(packed.model)
    with torch.no_grad():
        model.joiner.output.bias[0] -= BLANK_BONUS
        model.joiner.output.bias[FEW:] -= 30
    return model, weights._replace(output_bias_V=model.joiner.output.bias.detach().numpy().copy())


def encoded(num_frames, seed, scale=1.0):
    drawn = np.random.default_rng(seed)
    return (scale * drawn.standard_normal((num_frames, WIDTH))).astype(np.float32)


phrases = st.lists(
    st.tuples(st.lists(st.integers(1, NUM_TOKENS + 3), min_size=1, max_size=4), st.floats(0.1, 4.0)),
    max_size=12,
)
word_beginnings = st.lists(st.booleans(), min_size=1, max_size=NUM_TOKENS).map(np.array)
prefixes = st.lists(st.lists(st.integers(1, NUM_TOKENS), min_size=1, max_size=2), max_size=20)
tries = st.builds(BiasTrie.build, phrases, prefixes, word_beginnings)


@st.composite
def lexicons(draw):
    """Few tokens begin a word and few go on, so that many words begin alike."""
    begins_V = np.arange(NUM_TOKENS) % draw(st.sampled_from([2, 3, 7])) == 1
    first = st.sampled_from(np.flatnonzero(begins_V).tolist())
    rest = st.sampled_from(np.flatnonzero(~begins_V)[1:6].tolist())  # 0 is blank
    word = st.builds(lambda token, more: [token, *more], first, st.lists(rest, max_size=3))
    listed = draw(st.lists(word, max_size=40, unique_by=tuple))
    weights = draw(st.sampled_from([LexiconWeights(0.0, 0.0, 0.7), LexiconWeights(0.4, 1.0, 2.5)]))
    return drawn_lexicon(
        draw(st.integers(0, 9)), listed, begins_V, weights, num_classes=draw(st.integers(1, 9))
    )


def nodes_of(key, bias, lexicon):
    """(node of the bias, node of the lexicon), as the compiled search has them."""
    if bias and lexicon:
        return key.node
    return (0, key.node) if lexicon else (key.node or 0, int(key.context[-1] > 0))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_states=st.integers(1, 12),
    num_owing=st.integers(0, 12),
    num_alike=st.integers(1, 4),
    beam=st.sampled_from([0.5, 2.0, 5.0, 10.0, np.inf]),
    bias=st.one_of(st.none(), phrases.map(BiasTrie.build), tries),
    lexicon=st.one_of(st.none(), lexicons(), lexicons()),
    scale=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_states_and_arcs_are_the_references(
    packed, fast_kernels, seed, num_states, num_owing, num_alike, beam, bias, lexicon, scale
):
    """Until two sums are so near each other that rounding decides which is better, or what the beam drops."""
    config = BeamConfig(num_states, beam, num_owing, num_alike)
    slow, fast = (kernels.search(config, bias, lexicon) for kernels in (TorchKernels(packed), fast_kernels))
    assert isinstance(slow, BeamSearch) and isinstance(fast, FastBeamSearch)
    check_equal(slow, fast, encoded(8, seed, scale))


@pytest.mark.parametrize("bias", [None, BiasTrie.build([([1, 2], 0.4), ([2, 3, 2], 0.6)])])
@pytest.mark.parametrize("penalty", [0.0, 0.3, 1.5])
def test_states_of_equal_tokens_and_other_words_stay_apart(models_of_few, bias, penalty):
    words = [[1, *rest] for length in range(5) for rest in product((2, 3), repeat=length)]
    for seed in range(20):
        chosen = np.random.default_rng(seed).permutation(len(words))[:12]
        weights = LexiconWeights(penalty, 0.2, penalty)
        lexicon = drawn_lexicon(seed, [words[i] for i in chosen], np.arange(NUM_TOKENS) == 1, weights)
        both = BiasedLexicon(bias, lexicon) if bias else lexicon
        model, search_weights = models_of_few
        slow = BeamSearch(model, BeamConfig(12), both)
        check_equal(
            slow, FastBeamSearch(search_weights, BeamConfig(12), bias, lexicon), encoded(12, seed, 0.5)
        )


def check_equal(slow, fast, encoded_TD):
    """States and arcs after every frame, until rounding decides about them."""
    bias, lexicon = fast.bias, fast.lexicon
    expected, ours = slow.initial(), fast.initial()
    for encoded_1D in encoded_TD[:, None]:
        if is_close_call(slow, expected, encoded_1D):
            return
        expected, ours = slow.advance(expected, encoded_1D), fast.advance(ours, encoded_1D)
        assert list(map(tuple, ours.contexts_S2.tolist())) == [key.context for key in expected.keys]
        nodes = list(zip(ours.nodes_S.tolist(), ours.words_S.tolist(), strict=True))
        assert nodes == [nodes_of(key, bias, lexicon) for key in expected.keys]
        assert np.allclose(ours.totals_S, expected.totals, atol=1e-4)
        final_S = ours.totals_S + fast.finish(ours).final_bonuses
        assert final_S[slow.best_state(expected)] == pytest.approx(final_S[fast.best_state(ours)], abs=1e-4)
        assert np.allclose(fast.finish(ours).final_bonuses, slow.finish(expected).final_bonuses)
        for beam in (0.0, 3.0, np.inf):
            assert fast.lattice(ours, beam) == near_best(fast.finish(ours), beam)
        assert list(ours.moves) == expected.moves
        assert fast.blank_posterior(ours) == pytest.approx(slow.blank_posterior(expected), abs=1e-4)
        last = [search.finish(state).frames[-1] for search, state in ((fast, ours), (slow, expected))]
        arcs, others = map(sorted, last)
        assert [arc[:3] for arc in arcs] == [arc[:3] for arc in others]
        assert np.allclose([arc[3:] for arc in arcs], [arc[3:] for arc in others], atol=1e-4)
        firsts = [list(dict.fromkeys(arc.target for arc in arcs)) for arcs in last]
        assert firsts[0] == firsts[1] == list(range(len(ours.totals_S)))


def is_close_call(search, before, encoded_1D):
    """Whether two states after the frame are equally good within rounding, or an arc lies on the beam's edge."""
    limits = search.config
    wider = BeamConfig(limits.num_states + 1, limits.beam + 1e-3, limits.num_owing + 1, limits.num_alike + 1)
    after = dataclasses.replace(search, config=wider).advance(before, encoded_1D)
    best = next(
        total
        for key, total in zip(after.keys, after.totals, strict=True)
        if not search.bias or search.bias.unfinished(key.node) is None
    )
    below = best - np.array(
        [before.totals[arc.source] + arc.acoustic + arc.bonus for arc in after.frames[-1]]
    )
    return min(-np.diff(after.totals), default=1) < 1e-3 or np.abs(below - limits.beam).min() < 1e-3


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), score=st.floats(0.1, 9.0), beam=st.sampled_from([1.0, 4.0, 8.0]))
def test_what_phrases_lend_pushes_nothing_out_of_the_beam(weights, seed, score, beam):
    """A list none of whose phrases can end in time: it used to lose what is found without it."""
    drawn = np.random.default_rng(seed)
    phrases = [(drawn.integers(1, 9, 20).tolist(), score) for _ in range(30)]
    encoded_TD = encoded(10, seed, 0.5)
    best = {}
    for bias in (None, BiasTrie.build(phrases)):
        search = FastBeamSearch(weights, BeamConfig(4, beam, num_owing=10_000, num_alike=10_000), bias)
        state = search.advance(search.initial(), encoded_TD)
        best[bias is None] = (state.totals_S + search.finish(state).final_bonuses).max()
    assert best[False] >= best[True] - 1e-4


@pytest.mark.parametrize("num_places", [1, 3])
def test_what_a_memo_forgets_is_computed_again(weights, num_places):
    bias = BiasTrie.build([([3, 4], 2.0), ([4, 5, 6], 1.0)])
    memo = Memo.of(weights, num_places)
    for seed in range(5):
        searches = [FastBeamSearch(weights, BeamConfig(8), bias, None, each) for each in (memo, None)]
        small, large = (found(search, encoded(12, seed)) for search in searches)
        assert small == large
    assert (memo.keys_N >= 0).all()


@pytest.mark.parametrize("num_vectors", [1, 3, 4, 9])
@pytest.mark.parametrize("num_columns", [1, 6, 23])
def test_products_of_many_vectors_are_those_of_each(num_vectors, num_columns):
    drawn = np.random.default_rng(num_vectors)
    integers_CR = drawn.integers(-127, 128, (num_columns, 11)).astype(np.int8)
    matrix = Matrix(integers_CR, drawn.random(11, np.float32))
    x_SC = drawn.standard_normal((num_vectors, num_columns)).astype(np.float32)
    expected_SR = x_SC.astype(np.float64) @ (integers_CR * matrix.scale_R.astype(np.float64))
    assert np.allclose(fast_step.product_many(matrix, x_SC), expected_SR, atol=2e-3)
    assert np.allclose([fast_step.product(matrix, x_C) for x_C in x_SC], expected_SR, atol=2e-3)


LEXICON = drawn_lexicon(1, [[1], [1, 2], [3, 2, 4], [5, 6, 6]], np.arange(NUM_TOKENS) % 2 == 1)


@pytest.mark.parametrize("lexicon", [None, LEXICON])
def test_frames_may_come_one_by_one_and_states_are_left_alone(weights, lexicon):
    bias = BiasTrie.build([([3, 4], 2.0), ([4, 5, 6], 1.0)])
    search = FastBeamSearch(weights, BeamConfig(5), bias, lexicon)
    encoded_TD = encoded(12, 1)
    whole, state = search.advance(search.initial(), encoded_TD), search.initial()
    for encoded_D in encoded_TD:
        kept = {name: np.copy(getattr(state, name)) for name in state._fields[:5]}
        after = search.advance(state, encoded_D[None])
        assert all(np.array_equal(getattr(state, name), value) for name, value in kept.items())
        state = after
    assert search.finish(state) == search.finish(whole)
    assert np.array_equal(state.totals_S, whole.totals_S)


def found(search, encoded_TD):
    return search.finish(search.advance(search.initial(), encoded_TD))


@pytest.mark.parametrize("bias", [None, BiasTrie.build([([3, 4], 2.0), ([4, 5, 6], 1.0)])])
@pytest.mark.parametrize("begins_V", [LEXICON.begins_V, np.ones(NUM_TOKENS, bool)])
def test_a_lexicon_that_costs_nothing_changes_nothing(weights, bias, begins_V):
    free = plain_lexicon([], begins_V, 0.0)
    free = dataclasses.replace(
        free, next_KK=np.zeros_like(free.next_KK)
    )  # or it would tell first words apart
    for seed in range(10):
        plain, free_of_cost = (FastBeamSearch(weights, BeamConfig(), bias, known) for known in (None, free))
        assert found(plain, encoded(20, seed)) == found(free_of_cost, encoded(20, seed))


def test_unknown_words_are_not_found_where_they_cost_much(weights):
    words = [[1], [1, 2], [3, 2, 4], [5, 6, 6], [9, 22, 22], [9, 22, 10]]
    strict = plain_lexicon(words, LEXICON.begins_V, 50.0)
    for seed in range(10):
        encoded_TD = encoded(20, seed, 2.0)
        without = best_tokens(found(FastBeamSearch(weights, BeamConfig()), encoded_TD))
        known = best_tokens(found(FastBeamSearch(weights, BeamConfig(), lexicon=strict), encoded_TD))
        assert known.bonus == 0 and known.tokens != without.tokens


@pytest.mark.parametrize("num_tokens", [NUM_TOKENS - 1, NUM_TOKENS + 1])
def test_a_lexicon_of_another_models_tokens_is_refused(weights, num_tokens):
    with pytest.raises(ValueError, match=f"{num_tokens} tokens, the model of {NUM_TOKENS}"):
        FastBeamSearch(weights, BeamConfig(), lexicon=Lexicon.free(num_tokens))


def test_a_compiled_end_pointer_is_the_models(packed):
    torch.manual_seed(1)
    model = EndpointModel(EndpointModelConfig(WIDTH)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    weights = tuple(fast_endpoint.weights_of(model.arrays(), model.config))
    hidden_BH = np.zeros((3, 16), np.float32)
    pause_TBD = 20 * np.random.default_rng(0).random((30, 3, 4), np.float32)
    encoded_TBD = np.stack([encoded(3, seed) for seed in range(30)])
    change_TBF = np.random.default_rng(1).standard_normal((30, 3, 64), np.float32)
    with torch.no_grad():
        given = (torch.from_numpy(array.swapaxes(0, 1).copy()) for array in (encoded_TBD, pause_TBD))
        logit_BT, hidden_BTH = model(*given)
        half_BT = model.half(hidden_BTH, torch.from_numpy(change_TBF.swapaxes(0, 1).copy())).sigmoid()
    expected_BT = logit_BT.sigmoid()
    alone_1H = hidden_BH[1:2]
    for t in range(30):
        score_B, hidden_BH = fast_endpoint.score(encoded_TBD[t], pause_TBD[t], hidden_BH, weights)
        assert np.allclose(score_B, expected_BT[:, t], atol=1e-5)
        score_1, alone_1H = fast_endpoint.score(encoded_TBD[t, 1:2], pause_TBD[t, 1:2], alone_1H, weights)
        assert score_1[0] == score_B[1]
        half_B = fast_endpoint.half_score(change_TBF[t], hidden_BH, weights)
        assert np.allclose(half_B, half_BT[:, t], atol=1e-5)
        assert fast_endpoint.half_score(change_TBF[t, 1:2], alone_1H, weights)[0] == half_B[1]
