"""The compiled search finds the states, arcs and scores of the reference, on random models and phrases."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.endpoint_input import EndpointModelConfig
from pipeline.decoding.endpoint_model import EndpointModel
from pipeline.decoding.search import BeamConfig
from pipeline.runtime import fast_endpoint, fast_step
from pipeline.runtime.fast_beam import FastBeamSearch
from pipeline.runtime.fast_weights import Matrix, weights_of
from tests.tiny_model import tiny_packed

WIDTH, NUM_TOKENS = 24, 48  # of the tiny model


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return tiny_packed(tmp_path_factory.mktemp("beam"))


@pytest.fixture(scope="module")
def weights(packed):
    return weights_of(packed.contents).search


def encoded(num_frames, seed, scale=1.0):
    drawn = np.random.default_rng(seed)
    return (scale * drawn.standard_normal((num_frames, WIDTH))).astype(np.float32)


phrases = st.lists(
    st.tuples(st.lists(st.integers(1, NUM_TOKENS + 3), min_size=1, max_size=4), st.floats(0.1, 4.0)),
    max_size=12,
)
word_beginnings = st.lists(st.booleans(), min_size=1, max_size=NUM_TOKENS).map(np.array)
tries = st.builds(
    lambda listed, begins_V: BiasTrie.build(listed, begins_V=begins_V), phrases, word_beginnings
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_states=st.integers(1, 12),
    beam=st.sampled_from([0.5, 2.0, 5.0, 10.0, np.inf]),
    bias=st.one_of(st.none(), phrases.map(BiasTrie.build), tries),
    scale=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_states_and_arcs_are_the_references(packed, weights, seed, num_states, beam, bias, scale):
    """Until two sums are so near each other that rounding decides which is better, or what the beam drops."""
    config = BeamConfig(num_states, beam)
    slow, fast = BeamSearch(packed.model, config, bias), FastBeamSearch(weights, config, bias)
    expected, ours = slow.initial(), fast.initial()
    for encoded_1D in encoded(8, seed, scale)[:, None]:
        if is_close_call(slow, expected, encoded_1D):
            return
        expected, ours = slow.advance(expected, encoded_1D), fast.advance(ours, encoded_1D)
        assert list(map(tuple, ours.contexts_S2.tolist())) == [key.context for key in expected.keys]
        assert ours.nodes_S.tolist() == [key.node or 0 for key in expected.keys]
        assert np.allclose(ours.totals_S, expected.totals, atol=1e-4)
        final_S = ours.totals_S + fast.finish(ours).final_bonuses
        assert final_S[slow.best_state(expected)] == pytest.approx(final_S[fast.best_state(ours)], abs=1e-4)
        assert np.allclose(fast.finish(ours).final_bonuses, slow.finish(expected).final_bonuses)
        arcs, others = (sorted(state.frames[-1]) for state in (ours, expected))
        assert [arc[:3] for arc in arcs] == [arc[:3] for arc in others]
        assert np.allclose([arc[3:] for arc in arcs], [arc[3:] for arc in others], atol=1e-4)
        firsts = [list(dict.fromkeys(arc.target for arc in state.frames[-1])) for state in (ours, expected)]
        assert firsts[0] == firsts[1] == list(range(len(ours.totals_S)))


def is_close_call(search, before, encoded_1D):
    """Whether two states after the frame are equally good within rounding, or an arc lies on the beam's edge."""
    limits = search.config
    wider = BeamConfig(limits.num_states + 1, limits.beam + 1e-3)
    after = dataclasses.replace(search, config=wider).advance(before, encoded_1D)
    below = after.totals[0] - np.array(
        [before.totals[arc.source] + arc.acoustic + arc.bonus for arc in after.frames[-1]]
    )
    return min(-np.diff(after.totals), default=1) < 1e-3 or np.abs(below - limits.beam).min() < 1e-3


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


def test_frames_may_come_one_by_one_and_states_are_left_alone(weights):
    search = FastBeamSearch(weights, BeamConfig(5), BiasTrie.build([([3, 4], 2.0), ([4, 5, 6], 1.0)]))
    encoded_TD = encoded(12, 1)
    whole, state = search.advance(search.initial(), encoded_TD), search.initial()
    for encoded_D in encoded_TD:
        kept = {name: np.copy(getattr(state, name)) for name in state._fields[:4]}
        after = search.advance(state, encoded_D[None])
        assert all(np.array_equal(getattr(state, name), value) for name, value in kept.items())
        state = after
    assert search.finish(state) == search.finish(whole)
    assert np.array_equal(state.totals_S, whole.totals_S)


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
    with torch.no_grad():
        given = (torch.from_numpy(array.swapaxes(0, 1).copy()) for array in (encoded_TBD, pause_TBD))
        expected_BT = model(*given).sigmoid().numpy()
    alone_1H = hidden_BH[1:2]
    for t in range(30):
        score_B, hidden_BH = fast_endpoint.score(encoded_TBD[t], pause_TBD[t], hidden_BH, weights)
        assert np.allclose(score_B, expected_BT[:, t], atol=1e-5)
        score_1, alone_1H = fast_endpoint.score(encoded_TBD[t, 1:2], pause_TBD[t, 1:2], alone_1H, weights)
        assert score_1[0] == score_B[1]
