"""The batch's search against the one that leaves lattices, against greedy search and against all sequences."""

import numpy as np
import pytest
import torch

from pipeline.decoding.batch_beam import beam_search, merged
from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.greedy import greedy
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import best_tokens
from tests import reference_lattice as slow
from tests.test_lattice import encoded, tiny


def alone(model, encoded_TD, config):
    search = BeamSearch(model, config)
    return best_tokens(search.finish(search.advance(search.initial(), encoded_TD)))


@pytest.mark.parametrize(
    "config", [BeamConfig(1), BeamConfig(2), BeamConfig(5, 3.0), BeamConfig(8), BeamConfig(30, 50.0)]
)
def test_each_utterance_of_a_batch_gets_what_the_lattice_search_finds(config):
    model = tiny(9, 3)
    lengths = [0, 1, 2, 7, 25, 40]
    encoded_BTD = torch.stack([encoded(40, seed) for seed in range(len(lengths))])
    found = beam_search(model, encoded_BTD, torch.tensor(lengths), config)
    for encoded_TD, length, path in zip(encoded_BTD, lengths, found, strict=True):
        expected = alone(model, encoded_TD[:length], config)
        assert (path.tokens, path.frames, path.bonus) == (expected.tokens, expected.frames, 0.0)
        assert path.log_prob == pytest.approx(expected.log_prob, abs=1e-4)
    assert sum(len(path.tokens) for path in found) > 20


def test_one_state_is_the_greedy_search_and_more_are_no_worse():
    model = tiny(11)
    encoded_BTD = torch.stack([encoded(40, seed) for seed in range(6)])
    lengths_B = torch.tensor([40, 40, 39, 20, 5, 0])
    one = beam_search(model, encoded_BTD, lengths_B, BeamConfig(1))
    for path, expected in zip(one, greedy(model, encoded_BTD, lengths_B), strict=True):
        assert (path.tokens, path.frames) == (expected.tokens, expected.frames)
        assert path.log_prob == pytest.approx(expected.log_prob, abs=1e-3)
    wide = beam_search(model, encoded_BTD, lengths_B, BeamConfig(400, 1e9))
    assert all(more.log_prob >= less.log_prob - 1e-6 for more, less in zip(wide, one, strict=True))
    assert any(more.log_prob > less.log_prob + 0.1 for more, less in zip(wide, one, strict=True))


@pytest.mark.parametrize("num_frames", [0, 1, 3, 5])
def test_a_wide_beam_finds_the_best_of_all_sequences(num_frames):
    for seed in range(4):
        model, encoded_TD = tiny(4, seed), encoded(num_frames, seed)
        symbols, log_prob, _ = max(slow.all_token_paths(model, encoded_TD, None), key=lambda path: path[1])
        (found,) = beam_search(model, encoded_TD[None], torch.tensor([num_frames]), BeamConfig(64, 1e9))
        assert found.tokens == [symbol for symbol in symbols if symbol]
        assert found.log_prob == pytest.approx(log_prob, abs=1e-4)


def test_of_candidates_with_equal_keys_the_best_is_left():
    drawn = np.random.default_rng(5)
    for _ in range(40):
        keys_C4 = drawn.integers(0, 3, (drawn.integers(1, 60), 4))
        total_C = drawn.integers(0, 20, len(keys_C4)).astype(float)  # some are equal
        best: dict = {}
        for c, key in enumerate(map(tuple, keys_C4.tolist())):
            best[key] = max((total_C[c], -c), best.get(key, (-np.inf, 0)))
        expected = {}
        for utterance in range(3):
            left = sorted((pair for key, pair in best.items() if key[0] == utterance), reverse=True)[:4]
            expected |= {-c: place for place, (_, c) in enumerate(left)}
        found = merged(torch.from_numpy(total_C), torch.from_numpy(keys_C4), 4)
        assert dict(zip(*(each.tolist() for each in found), strict=True)) == expected
