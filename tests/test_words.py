"""Word classes and their trigram against their definitions, and the section that carries them, whole and damaged."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.lexicon import LexiconWeights
from pipeline.errors import UserError
from pipeline.language.class_ngram import NUM_OWN, UNKNOWN, ClassNgram
from pipeline.language.word_classes import word_classes
from pipeline.runtime.word_section import pack_words, read_lexicon, unpack_words
from tests import reference_lexicon as twin

WEIGHTS = LexiconWeights(0.4, 1.0, 4.0)
ARRAYS = ("class_W", "level_W", "pairs_P2", "first_H", "successor_S", "level_S")
texts = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=14)


def drawn_pairs(seed, num_words, count=200):
    drawn = random.Random(seed)
    return Counter((drawn.randrange(num_words), drawn.randrange(num_words)) for _ in range(count))


@pytest.mark.parametrize("seed", range(6))
def test_no_word_gains_by_changing_its_class(seed):
    """The exchange algorithm ends where its criterion, counted anew for every move, is at a peak."""
    num_words, num_classes, num_own = 14, 5, 2
    pairs = drawn_pairs(seed, num_words)
    class_W = word_classes(pairs, num_words, num_classes, num_own)
    reached = twin.class_likelihood(pairs, class_W)
    assert class_W[:num_own].tolist() == list(range(num_own))
    assert class_W[num_own:].min() >= num_own and class_W.max() < num_classes
    for word in range(num_own, num_words):
        for other in range(num_own, num_classes):
            moved = class_W.copy()
            moved[word] = other
            assert twin.class_likelihood(pairs, moved) <= reached + 1e-6
    assert np.array_equal(class_W, word_classes(pairs, num_words, num_classes, num_own))


def test_words_that_keep_the_same_company_get_one_class():
    rooms, colours = ["attic", "hall", "cellar"], ["red", "green", "blue"]
    said = [["paint", "the", room, colour] for room in rooms for colour in colours] * 4
    ngram = ClassNgram.fit(said, {word for each in said for word in each}, 4, 1)
    class_of = dict(zip(ngram.words, ngram.class_W.tolist(), strict=True))
    assert len({class_of[room] for room in rooms}) == len({class_of[colour] for colour in colours}) == 1
    assert class_of["hall"] != class_of["red"]
    assert ngram.perplexity(said) < 2.3  # three rooms and three colours in five steps: 9 ** (1 / 5) = 1.55


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_are_the_definitions_and_add_up_to_one(seed):
    ngram = twin.drawn_ngram(seed, 9, num_classes=4, min_history=3)
    assert len(ngram.pairs_P2) > 3
    rows = [(c,) for c in range(ngram.num_classes)] + [tuple(pair) for pair in ngram.pairs_P2.tolist()]
    for history, probability_K in zip(rows, ngram.probability_HK, strict=True):
        expected = [twin.probability(ngram, history, c) for c in range(ngram.num_classes)]
        assert np.allclose(probability_K, expected) and probability_K.sum() == pytest.approx(1)
    for c in range(NUM_OWN, ngram.num_classes):
        assert ngram.emission_W[ngram.class_W == c].sum() == pytest.approx(float(c in ngram.class_W))


def test_counts_are_of_the_sentences_and_kept_in_half_octaves():
    ngram = ClassNgram.fit([["a", "b"]] * 5 + [["a", "c"]] * 3, ["a", "b"], 2, 6)
    a, b = ngram.class_W.tolist()
    rows = {h: {c: round(n, 2) for c, n in row.items()} for h, row in twin.histories(ngram).items()}
    assert rows == {
        (0,): {a: 8.0},
        (1,): {0: 2.83},
        (a,): {1: 2.83, b: 5.66},
        (b,): {0: 5.66},
        (0, a): {1: 2.83, b: 5.66},
    }


def test_a_word_said_once_teaches_where_unknown_words_stand():
    said = [["call", "anna"], ["call", "bob"], ["stop"], ["stop"]]
    ngram = ClassNgram.fit(said, ["anna", "bob", "call", "stop"], 4, 1)
    call, stop = (int(ngram.class_W[ngram.words.index(word)]) for word in ("call", "stop"))
    assert ngram.probability_HK[call, UNKNOWN] > 3 * ngram.probability_HK[stop, UNKNOWN]


def test_without_sentences_or_words_there_is_still_a_model():
    for ngram in (ClassNgram.silent(), ClassNgram.fit([], [], 5, 1), ClassNgram.fit([], ["a"], 5, 1)):
        assert np.allclose(ngram.probability_HK.sum(1), 1)
        assert ngram.perplexity([["a"], []]) > 1 and ngram.perplexity([]) == 1
        again, _ = unpack_words(pack_words(ngram, WEIGHTS))
        assert again.words == ngram.words


@settings(deadline=None, max_examples=60)
@given(st.sets(texts, max_size=25), st.integers(1, 30), st.integers(1, 5), st.integers(0, 100))
def test_a_section_is_read_as_it_was_written(words, num_classes, min_history, seed):
    drawn, listed = random.Random(seed), sorted(words)
    sentences = [drawn.choices([*listed, "?"], k=drawn.randint(0, 5)) for _ in range(20)]
    ngram = ClassNgram.fit(sentences, words, num_classes, min_history)
    found, weights = unpack_words(pack_words(ngram, WEIGHTS))
    assert (found.words, found.num_classes, weights) == (ngram.words, ngram.num_classes, WEIGHTS)
    for name in ARRAYS:
        assert np.array_equal(getattr(found, name), getattr(ngram, name)), name


def test_a_damaged_section_is_refused_or_still_a_model():
    """2,000 sections with bytes changed, lost or added: none crashes, and what is read adds up."""
    whole = pack_words(twin.drawn_ngram(1, 12, num_classes=5), WEIGHTS)
    drawn, refused = random.Random(3), 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(drawn.randint(1, 4)):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        cut = drawn.choice([0, 0, 1, drawn.randrange(len(data))])
        try:
            ngram, _ = unpack_words(bytes(data[: len(data) - cut]))
        except (ValueError, UserError):
            refused += 1
            continue
        assert np.allclose(ngram.probability_HK.sum(1), 1)
        assert list(ngram.words) == sorted(set(ngram.words))
    assert refused > 1000


def test_a_file_that_holds_no_words_is_one_clear_error(tmp_path):
    tokenizer = Tokenizer.from_pieces([("<blk>", 0.0), ("<unk>", 0.0), ("▁", -1.0), ("a", -2.0)])
    path = tmp_path / "words.bin"
    for body in (None, b"", pack_words(ClassNgram.fit([], ["z"], 1, 1), WEIGHTS)):
        if body is not None:
            path.write_bytes(body)
        with pytest.raises(UserError, match="words.bin: holds no words"):
            read_lexicon(path, tokenizer)
