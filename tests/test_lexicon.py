"""The lexicon against the definition of its worth, and the batch's search with it against all sequences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.batch_beam import beam_search
from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.biased_lexicon import BiasedLexicon
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import LexiconWeights
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import best_tokens
from pipeline.errors import UserError
from tests import reference_lattice as slow
from tests import reference_lexicon as twin
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


@settings(deadline=None)
@given(
    st.lists(words, max_size=6, unique_by=tuple),
    st.lists(st.integers(0, 5), max_size=12),
    st.integers(0, 50),
    st.sampled_from(
        [LexiconWeights(0.7, 0.4, 1.5), LexiconWeights(0.0, 0.0, 2.0), LexiconWeights(1.0, -0.3, 0.0)]
    ),
)
def test_a_walk_earns_what_the_words_are_worth(known, tokens, seed, weights):
    """Tokens that do not begin a word begin one none the less where there is none: that is unknown."""
    lexicon = twin.drawn_lexicon(seed, known, BEGINS_V, weights, min_history=1)
    expected = twin.bonus(lexicon.ngram, weights, known, BEGINS_V, tokens)
    assert walked(lexicon, tokens) == pytest.approx(expected, abs=1e-4)
    assert lexicon.earned([tokens, [], tokens[:1]])[0] == pytest.approx(walked(lexicon, tokens))


def test_what_is_due_is_due_at_once():
    """After each token the sum is that of the likeliest of all words that begin so, taken together."""
    spellings = [[1], [1, 3], [1, 3, 4], [2, 4]]
    lexicon = twin.drawn_lexicon(1, spellings, BEGINS_V, LexiconWeights(1.0, 0.0, 0.5))
    ngram, node, total = lexicon.ngram, lexicon.start(), 0.0
    for n, token in enumerate((1, 3, 4), 1):
        node, more = lexicon.step(node, token)
        total += more
        alike = [w for w, tokens in enumerate(spellings) if tokens[:n] == [1, 3, 4][:n]]
        chances = [
            twin.probability(ngram, (0,), int(ngram.class_W[w])) * twin.emission(ngram, w) for w in alike
        ]
        assert total == pytest.approx(np.log(sum(chances)), abs=1e-5)


@settings(deadline=None)
@given(st.lists(words, max_size=6, unique_by=tuple), st.integers(0, 20))
def test_a_row_is_a_step_with_each_token(known, seed):
    lexicon = twin.drawn_lexicon(seed, known, BEGINS_V)
    trie = BiasTrie.build([(word, 0.5) for word in known], begins_V=BEGINS_V)
    both = BiasedLexicon(trie, lexicon)
    num_nodes = lexicon.num_places * len(lexicon.newest_H)
    nodes_X = np.random.default_rng(seed).permutation(num_nodes)[:20]
    targets_XV, bonuses_XV = lexicon.rows(nodes_X)
    assert lexicon.finals(nodes_X).tolist() == [lexicon.final(node) for node in nodes_X]
    for n, node in enumerate(nodes_X.tolist()):
        nodes_V, bonus_V = both.row((0, node), len(BEGINS_V))
        for token in range(len(BEGINS_V)):
            assert lexicon.step(node, token) == (targets_XV[n, token], bonuses_XV[n, token])
            assert both.step((0, node), token) == (nodes_V[token], bonus_V[token])


@pytest.mark.parametrize("penalty", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("num_frames", [0, 1, 4])
def test_a_wide_beam_finds_the_best_of_all_sequences_with_a_lexicon(num_frames, penalty):
    lexicon = twin.drawn_lexicon(
        7, [[1], [1, 3], [1, 3, 4], [2, 4]], BEGINS_V, LexiconWeights(0.6, 0.2, penalty)
    )
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
    lexicon = twin.drawn_lexicon(3, [[1], [1, 3], [1, 3, 4], [2, 4], [2, 4, 5]], BEGINS_V)
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


@pytest.mark.parametrize("word", [[], [3], [1, 2], [1, 0], [1]])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(UserError, match="lexicon"):
        twin.plain_lexicon([[1], word], BEGINS_V, 1.0)


@pytest.mark.parametrize("key", ["scale", "word_bonus", "oov_penalty"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(key, value):
    if key == "word_bonus" and value == -1.0:
        return
    with pytest.raises(UserError, match=key):
        LexiconWeights(**{"scale": 0.4, "word_bonus": 1.0, "oov_penalty": 4.0, key: value})
