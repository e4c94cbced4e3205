"""The bias trie against its definition and by hand; U-WER, B-WER and false accepts by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.bias_groups import MAX_TOKEN, BiasGroup
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.search import BeamConfig
from pipeline.errors import UserError
from pipeline.evaluation import biased_wer, intervals, wer
from pipeline.runtime import phrases as phrase_lists
from tests.reference_biasing import earned, with_prefixes

TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=5)
# Quarters add up exactly in binary, so that "nets 0" can be asked for with ==.
SCORES = st.integers(0, 12).map(lambda quarters: quarters / 4)
PHRASES = st.lists(st.tuples(TOKENS, SCORES), max_size=7)
PREFIXES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=2), max_size=3)
SEQUENCE = st.lists(st.integers(0, 4), max_size=14)  # 0 is blank, 4 is in no phrase
A, B, C, D, X = 1, 2, 3, 4, 9


def bonuses(trie, sequence):
    """The bonus of each step and, last, of `final`."""
    node, paid = trie.start(), []
    for token in sequence:
        node, bonus = trie.step(node, token)
        paid.append(bonus)
    return [*paid, trie.final(node)]


def total(trie, sequence):
    return sum(bonuses(trie, sequence))


def spoken(sequence):
    return tuple(token for token in sequence if token != 0)


@given(PHRASES, SEQUENCE)
@settings(max_examples=400, deadline=None)
def test_a_sequence_earns_what_the_definition_says(phrases, sequence):
    assert total(BiasTrie.build(phrases), sequence) == earned(spoken(sequence), with_prefixes(phrases))


@given(PHRASES, PREFIXES, PHRASES, SEQUENCE)
@settings(max_examples=400, deadline=None)
def test_groups_with_activation_prefixes_earn_what_the_definition_says(phrases, prefixes, others, sequence):
    trie = BiasTrie.from_groups([BiasGroup(phrases, prefixes), BiasGroup(others)])
    worths = with_prefixes(phrases, prefixes) + with_prefixes(others)
    assert total(trie, sequence) == earned(spoken(sequence), worths)
    if not others:
        assert total(BiasTrie.build(phrases, prefixes), sequence) == total(trie, sequence)


WIDE = st.lists(st.integers(1, 8), min_size=1, max_size=3)
WIDE_GROUP = st.builds(
    BiasGroup,
    st.lists(st.tuples(WIDE, SCORES), max_size=4),
    st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=2), max_size=4),
)


@given(st.lists(WIDE_GROUP, max_size=4), st.sets(st.integers(1, 8)), st.data())
@settings(max_examples=1000, deadline=None)
def test_groups_that_share_prefixes_earn_what_the_definition_says(groups, begins, data):
    """Of eight tokens, so that many prefixes stand alone and open a gate; pieces make long phrases likely."""
    pieces = [tokens for group in groups for tokens, _ in group.phrases] + [
        prefix for group in groups for prefix in group.prefixes
    ]
    chosen = data.draw(st.lists(st.sampled_from([*pieces, [1], [0]]), max_size=6))
    sequence = [token for piece in chosen for token in piece]
    worths = tuple(pair for group in groups for pair in with_prefixes(group.phrases, group.prefixes))
    assert total(BiasTrie.from_groups(groups), sequence) == earned(spoken(sequence), worths)
    trie = BiasTrie.from_groups(groups, np.array([token in begins for token in range(9)]))
    assert total(trie, sequence) == earned(spoken(sequence), worths, frozenset(begins))


def test_prefixes_of_the_same_groups_share_their_phrases():
    names = [([number, D], 1.0) for number in range(10, 60)]
    prefixes = [[A], [B, X], [C]]
    trie = BiasTrie.from_groups(
        [BiasGroup(names, prefixes), BiasGroup([([61], 1.0)], [[C]]), BiasGroup([([62], 1.0)])]
    )
    assert (
        trie.num_nodes == 1 + 2 + 4 + 1 + 2 * 100 + 1
    )  # root, gates, prefixes, 62, names behind each gate, 61
    for prefix in prefixes:
        assert bonuses(trie, [*prefix, 17, D]) == [0] * len(prefix) + [1, 1, 0]
    assert (
        bonuses(trie, [17, D])
        == bonuses(trie, [B, 17, D])[1:]
        == bonuses(trie, [A, X, 17, D])[2:]
        == [0, 0, 0]
    )
    assert bonuses(trie, [C, 61]) == [0, 1, 0] and bonuses(trie, [A, 61]) == [0, 0, 0]


def test_a_prefix_that_overlaps_with_a_phrase_is_copied():
    """ "call me" counts anywhere and "me maybe" after "call": the second earns what it is worth beyond the first."""
    groups = [BiasGroup([([B, C], 2.0)], [[A]]), BiasGroup([([A, B], 1.0)])]
    assert total(BiasTrie.from_groups(groups), [A, B, C]) == 4


@given(PHRASES, PREFIXES, st.sets(st.integers(1, 4)), SEQUENCE)
@settings(max_examples=400, deadline=None)
def test_a_phrase_counts_only_where_its_last_word_ends(phrases, prefixes, begins, sequence):
    """Found on dev: "an" paid for the first syllable of every "anna"."""
    begins_V = np.array([token in begins for token in range(5)])
    trie = BiasTrie.build(phrases, prefixes, begins_V)
    worths = with_prefixes(phrases, prefixes)
    assert total(trie, sequence) == earned(spoken(sequence), worths, frozenset(begins))
    assert trie.final(trie.start()) == 0 and (trie.credit_G >= trie.pending_G).all()
    assert all((trie.unfinished(node) == node) == (trie.final(node) < 0) for node in range(trie.num_nodes))


@given(PHRASES, st.floats(0.01, 10, allow_subnormal=False), SEQUENCE)
@settings(max_examples=100, deadline=None)
def test_scores_that_are_not_round_leave_only_rounding(phrases, factor, sequence):
    phrases = [(tokens, factor * score) for tokens, score in phrases]
    expected = earned(spoken(sequence), with_prefixes(phrases))
    assert total(BiasTrie.build(phrases), sequence) == pytest.approx(expected, abs=1e-9)


@given(PHRASES, st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_search_takes_all_tokens_of_a_node_at_once(phrases, seed):
    """The row of a trie's node in the beam search against one step for each token."""
    search = BeamSearch(None, BeamConfig(), BiasTrie.build(phrases))
    node = seed % search.bias.num_nodes
    for num_tokens in (2, 7):
        row = search._row(node, num_tokens)
        assert list(zip(row.nodes, row.bonus_V.tolist(), strict=True)) == [
            search.bias.step(node, token) for token in range(num_tokens)
        ]


@given(PHRASES, SEQUENCE, SEQUENCE)
@settings(max_examples=200, deadline=None)
def test_a_completed_phrase_keeps_its_bonus_and_other_phrases_never_lower_it(phrases, before, after):
    trie = BiasTrie.build(phrases)
    for tokens, score in phrases:
        assert total(trie, [*before, *tokens, *after]) >= score * len(tokens)
        assert total(trie, before) >= total(BiasTrie.build([(tokens, score)]), before)


@given(PHRASES, SEQUENCE)
@settings(max_examples=200, deadline=None)
def test_the_state_is_a_function_of_the_longest_suffix_that_is_alive(phrases, sequence):
    trie = BiasTrie.build(phrases)
    sequence = list(spoken(sequence))
    paid = [tokens for tokens, score in phrases if score > 0]
    alive = {tuple(tokens[:length]) for tokens in paid for length in range(len(tokens) + 1)} | {()}
    suffix = next(sequence[i:] for i in range(len(sequence) + 1) if tuple(sequence[i:]) in alive)

    def state(tokens):
        node = trie.start()
        for token in tokens:
            node, _ = trie.step(node, token)
        return node

    assert state(sequence) == state(suffix)
    assert trie.num_nodes == len(alive)


def test_bonuses_by_hand():
    trie = BiasTrie.build([([A, B, C], 1.0)])
    assert bonuses(trie, [A, B, C]) == [1, 1, 1, 0]
    assert bonuses(trie, [A, B, X]) == [1, 1, -2, 0]
    assert bonuses(trie, [A, B]) == [1, 1, -2]
    assert bonuses(trie, [A, A, B, C]) == [1, 0, 1, 1, 0]  # the second A begins again
    assert bonuses(trie, [A, 0, B, 0, C, X]) == [1, 0, 1, 0, 1, 0, 0]  # blank waits


def test_a_phrase_within_a_word_by_hand():
    begins_V = np.array([False, True, False, False, True])
    trie = BiasTrie.build([([A, B], 1.0)], begins_V=begins_V)
    assert bonuses(trie, [A, B, C]) == [1, 1, -2, 0]
    assert bonuses(trie, [A, B, D]) == bonuses(trie, [A, B, X]) == [1, 1, 0, 0]


def test_nested_phrases_are_paid_once_and_overlapping_ones_both():
    first, last, full = ([A], 1.0), ([B], 1.0), ([A, B], 1.0)
    assert bonuses(BiasTrie.build([first, last, full]), [A, B]) == [1, 1, 0]
    assert total(BiasTrie.build([([A, B], 1.0), ([B, C], 1.0)]), [A, B, C]) == 4
    assert (
        total(BiasTrie.build([([B], 5.0), ([A, B], 1.0)]), [A, B]) == 5
    )  # the longer one takes nothing away


def test_of_duplicates_the_larger_score_wins():
    for scores in ((1.0, 2.0), (2.0, 1.0)):
        trie = BiasTrie.build([([A, B], score) for score in scores])
        assert bonuses(trie, [A, B]) == [2, 2, 0]


def test_phrases_after_a_prefix_earn_nothing_elsewhere_and_the_prefix_itself_nothing():
    trie = BiasTrie.build([([C, D], 1.0)], prefixes=[[A], [A, B]])
    assert bonuses(trie, [C, D]) == [0, 0, 0]
    assert bonuses(trie, [A, C, D]) == [0, 1, 1, 0]
    assert bonuses(trie, [X, A, B, C, D]) == [0, 0, 0, 1, 1, 0]
    assert bonuses(trie, [A, B, C, A, C]) == [0, 0, 1, -1, 1, -1]
    assert bonuses(trie, [A, X, C, D]) == [0, 0, 0, 0, 0]


def test_a_node_has_all_arcs_of_its_longest_suffix():
    """Many more arcs than nodes: 20 × 39 are inherited."""
    trie = BiasTrie.build([([A, t], 1.0) for t in range(2, 41)] + [([s, A], 1.0) for s in range(41, 61)])
    after_A, _ = trie.step(trie.start(), A)
    for first in range(41, 61):
        node, _ = trie.step(trie.step(trie.start(), first)[0], A)
        assert all(trie.step(node, t)[0] == trie.step(after_A, t)[0] != trie.start() for t in range(2, 41))
    assert len(trie.tokens_A) == 39 + 20 + 20 * 39


def test_no_phrases_never_pay():
    trie = BiasTrie.build([])
    assert bonuses(trie, [A, 0, X]) == [0, 0, 0, 0]
    assert BiasTrie.build([], prefixes=[[A]]).num_nodes == 1


@pytest.mark.parametrize(
    "phrases, prefixes, message",
    [
        ([([A], 1.0), ([], 1.0)], [], "bias phrase 1 is empty"),
        ([([A], 1.0)], [[B], []], "activation prefix 1 is empty"),
        ([([A], float("nan"))], [], "bias phrase 0 has score nan"),
        ([([A], 1.0), ([A, B], float("inf"))], [], "bias phrase 1 has score inf"),
        ([([A], -1.0)], [], "0 or more"),
        ([([A, B], 1.0), ([A, 0], 1.0), ([B], 1.0)], [], "bias phrase 1 has token 0"),
        ([([A], 1.0), ([MAX_TOKEN], 1.0)], [], "bias phrase 1 has token"),
        ([([A], 1.0)], [[B, -1]], "activation prefix 0 has token -1"),
    ],
)
def test_phrases_that_cannot_be_boosted_are_refused_in_one_sentence(phrases, prefixes, message):
    with pytest.raises(UserError, match=message) as caught:
        BiasTrie.build(phrases, prefixes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reference, hypothesis, bias, expected",
    [  # expected: u_words, u_errors, b_words, b_errors, false_accepts
        ("call anna now", "call anna now", ["anna", "ivo"], (2, 0, 1, 0, 0)),
        ("call anna now", "call hannah now", ["anna", "ivo"], (2, 0, 1, 1, 0)),
        ("call anna now", "call now", ["anna"], (2, 0, 1, 1, 0)),
        ("call anna now", "call ivo now", ["anna", "ivo"], (2, 0, 1, 1, 1)),
        ("call me now", "call ivo now", ["anna", "ivo"], (3, 1, 0, 0, 1)),
        ("call anna", "call anna ivo", ["anna", "ivo"], (1, 0, 1, 1, 1)),
        ("call anna", "call anna please", ["anna", "ivo"], (1, 1, 1, 0, 0)),
        ("call anna", "call anna anna", ["anna"], (1, 0, 1, 1, 0)),
        ("Call Anna Smith!", "call anna smith", ["Anna SMITH"], (1, 0, 2, 0, 0)),
        ("", "ivo", ["ivo"], (0, 0, 0, 1, 1)),
        ("call anna", "", [], (2, 2, 0, 0, 0)),
    ],
)
def test_errors_fall_on_the_right_side(reference, hypothesis, bias, expected):
    counts = biased_wer.count_biased_errors(reference, hypothesis, bias)
    names = ("u_words", "u_errors", "b_words", "b_errors", "false_accepts")
    assert tuple(counts[name] for name in names) == expected


WORDS = st.lists(st.sampled_from(["call", "mum", "now", "o'neill", "años"]), max_size=8).map(" ".join)


@given(WORDS, WORDS, st.sets(st.sampled_from(["mum", "o'neill", "ivo"])))
@settings(max_examples=100, deadline=None)
def test_the_two_sides_make_up_the_wer(reference, hypothesis, bias):
    counts = biased_wer.count_biased_errors(reference, hypothesis, bias)
    whole = wer.count_errors(reference, hypothesis)
    assert counts["u_words"] + counts["b_words"] == counts["words"] == whole["words"]
    assert counts["u_errors"] + counts["b_errors"] == whole["S"] + whole["D"] + whole["I"]
    assert counts["false_accepts"] <= len(hypothesis.split())


def small_table():
    said = [
        ("call anna now", "call hannah now"),
        ("call ivo", "call ivo"),
        ("stop it now please", "stop ivo now please"),
        ("go", "go"),
    ]
    return pd.DataFrame(
        [
            {"id": f"u{i}", "speaker": f"s{i % 3}", "reference": left, "hypothesis": right}
            for i, (left, right) in enumerate(said)
        ]
    )


def test_rates_by_hand_with_intervals_over_speakers():
    lists = {"u0": ["anna"], "u1": ["ivo"], "u2": ["ivo"], "u3": []}
    table = biased_wer.with_biased_counts(small_table(), lists)
    rates = biased_wer.biased_wer(table, seed=3, replicates=200)
    assert rates["b_wer"].value == 50.0
    assert rates["u_wer"].value == 100 * 1 / 8
    assert rates["false_accepts"].value == 1000 * 1 / 10
    assert all(rate.low <= rate.value <= rate.high for rate in rates.values())
    assert rates == biased_wer.biased_wer(table, seed=3, replicates=200)
    unbiased = biased_wer.as_wer_table(table, "u_wer")
    assert rates["u_wer"] == intervals.wer_interval(unbiased, seed=3, replicates=200)
    difference = intervals.paired_difference(unbiased, unbiased, seed=3, replicates=50)
    assert difference["absolute"].value == 0.0


def test_without_biased_words_there_is_no_b_wer_and_without_a_list_an_error():
    table = biased_wer.with_biased_counts(small_table(), {f"u{i}": ["otto"] for i in range(4)})
    assert set(biased_wer.biased_wer(table, seed=0, replicates=20)) == {"u_wer", "false_accepts"}
    with pytest.raises(KeyError):
        biased_wer.with_biased_counts(small_table(), {"u0": []})


@given(st.lists(st.text(alphabet="ab ,\tÄ\u00a0\n", max_size=6), max_size=5))
def test_a_list_is_plain_as_each_of_its_phrases(phrases):
    assert phrase_lists._plain_all(phrases) == [phrase_lists._plain(phrase) for phrase in phrases]
