"""The lexicon against the definition of its cost, and the batch's search with it against all sequences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.batch_beam import beam_search
from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.biased_lexicon import BiasedLexicon
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import best_tokens
from pipeline.errors import UserError
from tests import reference_lattice as slow
from tests.test_lattice import encoded, tiny

BEGINS_V = np.array(
    [False, True, True, False, False, False]
)  # blank, two that begin a word, three that do not
inner = st.integers(3, 5)
words = st.builds(lambda first, rest: [first, *rest], st.integers(1, 2), st.lists(inner, max_size=3))


def walked(guide, tokens):
    node, total = guide.start(), 0.0
    for token in tokens:
        node, bonus = guide.step(node, token)
        total += bonus
    return total + guide.final(node)


def cost(known, tokens):
    """The definition: how many words of the sequence are not among the known ones."""
    split = []
    for token in tokens:
        if BEGINS_V[token] or not split:
            split.append([])
        split[-1].append(token)
    return sum(word not in known for word in split)


@settings(deadline=None)
@given(st.lists(words, max_size=6), st.lists(st.integers(1, 5), max_size=12))
def test_each_unknown_word_costs_the_penalty_once(known, tokens):
    lexicon = Lexicon.build(known, BEGINS_V, 1.5)
    assert walked(lexicon, tokens) == -1.5 * cost(known, tokens)
    assert walked(lexicon, [0, *tokens, 0]) == -1.5 * cost(known, tokens)


@settings(deadline=None)
@given(st.lists(words, max_size=6))
def test_a_row_is_a_step_with_each_token(known):
    lexicon = Lexicon.build(known, BEGINS_V, 2.0)
    trie = BiasTrie.build([(word, 0.5) for word in known], begins_V=BEGINS_V)
    both = BiasedLexicon(trie, lexicon)
    targets_XV, bonuses_XV = lexicon.rows(np.arange(lexicon.unknown + 1))
    for node in range(lexicon.unknown + 1):
        nodes_V, bonus_V = both.row((0, node), len(BEGINS_V))
        for token in range(len(BEGINS_V)):
            assert lexicon.step(node, token) == (targets_XV[node, token], bonuses_XV[node, token])
            assert both.step((0, node), token) == (nodes_V[token], bonus_V[token])


@pytest.mark.parametrize("penalty", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("num_frames", [0, 1, 4, 5])
def test_a_wide_beam_finds_the_best_of_all_sequences_with_a_lexicon(num_frames, penalty):
    lexicon = Lexicon.build([[1], [1, 3], [1, 3, 4], [2, 4]], BEGINS_V, penalty)
    for seed in range(3):
        model, encoded_TD = tiny(6, seed), encoded(num_frames, seed)
        paths = slow.all_token_paths(model, encoded_TD, lexicon)
        symbols, log_prob, bonus = max(paths, key=lambda path: path[1] + path[2])
        config = BeamConfig(200, 1e9)
        (found,) = beam_search(model, encoded_TD[None], torch.tensor([num_frames]), config, lexicon)
        assert found.tokens == [symbol for symbol in symbols if symbol]
        assert found.log_prob == pytest.approx(log_prob, abs=1e-4)
        assert found.bonus == pytest.approx(bonus)


@pytest.mark.parametrize("config", [BeamConfig(1), BeamConfig(3), BeamConfig(8), BeamConfig(8, 3.0)])
def test_each_utterance_of_a_batch_gets_what_the_lattice_search_finds_with_a_lexicon(config):
    lexicon = Lexicon.build([[1], [1, 3], [1, 3, 4], [2, 4], [2, 4, 5]], BEGINS_V, 1.2)
    model, lengths = tiny(6, 3), [0, 1, 7, 25, 40]
    encoded_BTD = torch.stack([encoded(40, seed) for seed in range(len(lengths))])
    found = beam_search(model, encoded_BTD, torch.tensor(lengths), config, lexicon)
    plain = beam_search(model, encoded_BTD, torch.tensor(lengths), config)
    for encoded_TD, length, path in zip(encoded_BTD, lengths, found, strict=True):
        search = BeamSearch(model, config, lexicon)
        expected = best_tokens(search.finish(search.advance(search.initial(), encoded_TD[:length])))
        assert (path.tokens, path.frames) == (expected.tokens, expected.frames)
        assert path.log_prob == pytest.approx(expected.log_prob, abs=1e-4)
        assert path.bonus == pytest.approx(expected.bonus)
    assert [path.tokens for path in found] != [path.tokens for path in plain]


@pytest.mark.parametrize("word", [[], [3], [1, 2], [1, 0]])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(UserError, match="lexicon"):
        Lexicon.build([[1], word], BEGINS_V, 1.0)


@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf")])
def test_an_impossible_penalty_is_refused(penalty):
    with pytest.raises(UserError, match="oov_penalty"):
        Lexicon.build([[1]], BEGINS_V, penalty)
