"""WER against jiwer and a slow twin; intervals against what statistics says they must do; sizes by hand."""

import jiwer
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import intervals, plots, size, wer
from tests.reference_wer import edit_distance

WORDS = st.lists(st.sampled_from(["call", "mum", "now", "o'neill", "años", "a"]), max_size=8)


def fabricated_table(
    model="packed", error_rate=0.1, num_speakers=12, utterances_per_speaker=20, seed=0, spread=0.0
):
    """Utterances with random substitutions; `spread` makes some speakers harder than others."""
    generator = np.random.default_rng(seed)
    records, hypotheses = [], {}
    for speaker in range(num_speakers):
        rate = max(0.0, error_rate * (1 + spread * (2 * speaker / max(1, num_speakers - 1) - 1)))
        for index in range(utterances_per_speaker):
            words = ["turn", "on", "the", "kitchen", "lamp"]
            name = f"s{speaker:02d}-{index:03d}"
            snr_db = 5 + 25 * generator.random()
            said = {"id": name, "speaker": f"s{speaker:02d}", "reference": " ".join(words)}
            where = {"snr_db": snr_db, "rt60_s": 0.2, "interferer_sir_db": None, "pause_s": 0.0}
            records.append({**said, **where, "intent": "lamp", "voice": f"v{speaker}"})
            hypotheses[name] = " ".join("x" if generator.random() < rate else word for word in words)
    return wer.utterance_table(records, hypotheses, model)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_normaliser_is_idempotent_and_leaves_only_words(text):
    once = wer.normalise(text)
    assert wer.normalise(once) == once
    assert once == once.strip() and "  " not in once and not any(c in once for c in '.,!?"')


def test_normaliser_keeps_what_a_name_needs():
    assert wer.normalise("  Call O’Neill's  NÚMERO-dos!  'now' ") == "call o'neill's número dos now"


@given(WORDS, WORDS)
@settings(max_examples=200, deadline=None)
def test_counts_agree_with_the_slow_twin_and_with_jiwer(reference, hypothesis):
    counts = wer.count_errors(" ".join(reference), " ".join(hypothesis))
    assert counts["S"] + counts["D"] + counts["I"] == edit_distance(reference, hypothesis)
    assert counts["words"] == len(reference)
    assert counts["I"] - counts["D"] == len(hypothesis) - len(reference)
    if reference:
        theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
        assert theirs.substitutions + theirs.deletions + theirs.insertions == edit_distance(
            reference, hypothesis
        )


def test_table_agrees_with_jiwer_on_a_corpus():
    table = fabricated_table(error_rate=0.2)
    expected = 100 * jiwer.wer(table["reference"].tolist(), table["hypothesis"].tolist())
    assert wer.wer(table) == pytest.approx(expected)


def test_an_utterance_without_hypothesis_is_an_error_not_a_better_wer():
    record = {"id": "a", "speaker": "s", "reference": "call mum", "snr_db": 10.0, "interferer_sir_db": None}
    with pytest.raises(KeyError):
        wer.utterance_table([record], {}, "packed")


def test_noisy_is_low_snr_or_an_interferer():
    table = pd.DataFrame(
        {"snr_db": [11.9, 12.0, 25.0, np.nan], "interferer_sir_db": [np.nan, np.nan, 10.0, np.nan]}
    )
    assert wer.is_noisy(table).tolist() == [True, False, True, False]


def test_confusions_and_alignment_show_the_wrong_words():
    table = pd.DataFrame(
        {"reference": ["call mum now", "call mum"], "hypothesis": ["call tom now", "call tom please"]}
    )
    first = wer.confusions(table).iloc[0]
    assert (first["kind"], first["reference"], first["hypothesis"], first["count"]) == ("S", "mum", "tom", 2)
    assert "mum→tom" in wer.alignment_html("call mum", "call tom")


def test_name_errors_count_only_the_names_of_the_reference():
    record = {"id": "a", "speaker": "s", "reference": "call o'neill from anna now", "names": "O'Neill Anna",
              "snr_db": 10.0, "interferer_sir_db": None}  # fmt: skip
    table = wer.utterance_table([record], {"a": "call o'neill from hannah anna"}, "packed")
    row = table.iloc[0]
    assert (row["name_words"], row["name_errors"]) in ((2, 0), (2, 1))
    assert wer.name_error_rate(table) == 50.0 * row["name_errors"]
    table = wer.utterance_table([record], {"a": "call owen eel from now"}, "packed")
    assert wer.name_error_rate(table) == 100.0


def test_interval_is_seeded_and_holds_the_value():
    table = fabricated_table()
    first, second = intervals.wer_interval(table, seed=7), intervals.wer_interval(table, seed=7)
    assert first == second
    assert first.low < first.value < first.high
    assert first.value == pytest.approx(wer.wer(table))


def test_bootstrap_equals_a_loop_over_resampled_speakers():
    table = fabricated_table(num_speakers=5)
    draws_RK = intervals.draw_blocks(5, seed=1, replicates=20)
    speakers = sorted(table["speaker"].unique())
    expected = []
    for draws_K in draws_RK:
        resample = pd.concat(
            [table[table["speaker"] == s] for s, n in zip(speakers, draws_K, strict=True) for _ in range(n)]
        )
        expected.append(wer.wer(resample))
    np.testing.assert_allclose(intervals.replicate_wers(table, draws_RK), expected)


def test_speaker_blocks_widen_the_interval_where_speakers_differ():
    table = fabricated_table(spread=1.0, error_rate=0.2)
    blocked = intervals.wer_interval(table, seed=0)
    independent = intervals.wer_interval(table.assign(speaker=table["id"]), seed=0)
    assert blocked.high - blocked.low > 1.3 * (independent.high - independent.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    hits = 0
    for seed in range(60):
        table = fabricated_table(error_rate=0.2, num_speakers=30, utterances_per_speaker=5, seed=seed)
        interval = intervals.wer_interval(table, seed=0, replicates=300)
        hits += interval.low <= 20.0 <= interval.high
    assert 50 <= hits <= 60


def test_paired_difference_is_narrower_than_two_separate_intervals_and_zero_against_itself():
    base = fabricated_table(spread=1.0, error_rate=0.2)
    same = intervals.paired_difference(base, base, seed=0)
    assert (same["absolute"].value, same["absolute"].low, same["absolute"].high) == (0.0, 0.0, 0.0)
    assert same["ratio"].value == 1.0
    worse = base.copy()
    worse.loc[::10, "errors"] += 1
    difference = intervals.paired_difference(worse, base, seed=0)
    assert difference["absolute"].value == pytest.approx(wer.wer(worse) - wer.wer(base))
    assert difference["absolute"].low > 0
    assert difference["ratio"].value == pytest.approx(wer.wer(worse) / wer.wer(base))
    alone = intervals.wer_interval(base, seed=0)
    assert difference["absolute"].high - difference["absolute"].low < alone.high - alone.low


def test_paired_difference_needs_the_same_utterances():
    table = fabricated_table(num_speakers=2, utterances_per_speaker=3)
    with pytest.raises(ValueError, match="same utterances"):
        intervals.paired_difference(table, table.iloc[1:], seed=0)


def test_sizes_by_hand():
    dense = {"w": np.ones((4, 8), np.float32), "b": np.ones(4, np.float32)}
    assert size.bytes_fp32(dense) == 4 * 36 == size.stored_bytes(dense)
    half = {"w": np.tile([0.0, 1.0], (4, 4)).astype(np.float32), "b": np.ones(4, np.float32)}
    assert size.zeros(half) == 0.5
    assert size.stored_bytes(half) == (32 + 16 * 32) // 8 + 16
    coded = {"w": np.tile([-7.0, 7.0], (4, 4)).astype(np.float32), "w.scale": np.ones(4, np.float32)}
    assert size.num_parameters(coded) == 32
    assert size.stored_bytes(coded) == 32 * 4 // 8 + 16
    assert size.bits_per_weight(16, coded) == 4.0
    assert size.zeros_per_layer(half) == {"w": 0.5}


def test_plots_are_written_twice_the_same(tmp_path):
    rows = [{"model": "teacher", "wer": 6.0, "low": 5.0, "high": 7.0, "bytes": 12e6},
            {"model": "packed", "wer": 7.0, "low": 6.0, "high": 8.0, "bytes": 118e3}]  # fmt: skip
    table = pd.concat([fabricated_table("teacher"), fabricated_table("packed", 0.15)])
    curves = {"teacher": pd.DataFrame({"epoch": [0, 1], "dev_wer": [50.0, 20.0], "loss": [3.0, 1.0]})}
    figures = {
        "bytes": lambda: plots.wer_against_bytes(rows),
        "curves": lambda: plots.training_curves(curves),
        "zeros": lambda: plots.zeros_per_layer({"packed": {"a": 0.5, "b": 0.6}}),
        "snr": lambda: plots.wer_by_snr(table),
        "voice": lambda: plots.wer_by_group(table, "voice", ["teacher", "packed"], "WER by voice"),
    }
    for name, draw in figures.items():
        first = [path.read_bytes() for path in plots.save(draw(), tmp_path / "a", name)]
        second = [path.read_bytes() for path in plots.save(draw(), tmp_path / "b", name)]
        assert first == second, name
        assert len(first[0]) > 5000
