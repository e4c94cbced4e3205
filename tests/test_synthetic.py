"""The synthetic corpus: repeatable, varied, honestly split, and as noisy as it says."""

import dataclasses
import subprocess
import sys
import time
import zlib
from collections import Counter
from random import Random

import numpy as np
import pytest

from pipeline.corpus.grammar import Generator, Language, is_unseen
from pipeline.corpus.synthetic import SyntheticConfig, plan, render
from pipeline.corpus.synthetic_plan import LANGUAGES
from pipeline.corpus.voices import DEV, TEST, TRAIN, VOICES
from pipeline.errors import UserError

RATE_HZ = 16_000


@pytest.fixture(scope="module", params=["en", "es"])
def pool(request):
    """Plans of all splits: many, but never spoken."""
    config = SyntheticConfig(request.param)
    hours = {"train": 3, "unlabelled": 3, "dev": 0.3, "test": 1.4}
    return request.param, {split: plan(config, split, hours[split], 7) for split in hours}


@pytest.fixture(scope="module")
def rendered():
    plans = plan(SyntheticConfig("en"), "train", 0.03, 3) + plan(SyntheticConfig("es"), "train", 0.01, 3)
    return [(item, *render(item)) for item in plans]


def checksum(samples_S: np.ndarray) -> int:
    return zlib.crc32(samples_S.tobytes())


def test_plan_is_repeatable_grows_at_the_end_and_is_cheap():
    started = time.process_time()
    long = plan(SyntheticConfig("en"), "train", 2, 5)
    assert (time.process_time() - started) / len(
        long
    ) < 3e-4 * 4  # 3 s per 10,000, with room for a busy machine
    short = plan(SyntheticConfig("en"), "train", 1, 5)
    assert short == long[: len(short)] and len(long) > 1.8 * len(short)
    assert plan(SyntheticConfig("en"), "train", 1, 6)[:5] != short[:5]
    assert len({item.id for item in long}) == len(long)


def test_audio_is_the_same_in_any_order_and_in_another_process(rendered):
    expected = {item.id: checksum(samples_S) for item, samples_S, *_ in rendered}
    some = [item for item, *_ in rendered][::3]
    Random(1).shuffle(some)
    assert {item.id: checksum(render(item)[0]) for item in some} == {
        item.id: expected[item.id] for item in some
    }
    code = (
        "import zlib\nfrom pipeline.corpus.synthetic import *\n"
        "for item in plan(SyntheticConfig('en'), 'train', 0.03, 3)[9:3:-2]:\n"
        "    print(item.id, zlib.crc32(render(item)[0].tobytes()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    others = dict(line.split() for line in output.splitlines())
    assert len(others) == 3 and all(expected[name] == int(value) for name, value in others.items())


def test_hours_are_met(rendered):
    spoken_s = sum(len(samples_S) for _, samples_S, *_ in rendered) / RATE_HZ
    assert spoken_s == pytest.approx(sum(item.expected_s for item, *_ in rendered), rel=0.08)


def test_counts(pool):
    language, splits = pool
    plans = [item for items in splits.values() for item in items]
    words = {word for item in plans for word in item.text.split()}
    names = {name for item in plans for _, _, name in item.names}
    least = {"en": (20, 800, 500), "es": (18, 300, 150)}[language]
    assert len({item.intent for item in plans}) >= least[0]
    assert len(words - {word for name in names for word in name.split()}) >= least[1]
    assert len(names) >= least[2]
    assert all(word.replace("'", "").isalpha() and word == word.lower() for word in words)
    assert 5 <= np.mean([len(item.text.split()) for item in plans]) <= 7
    assert sum(len(item.text.split()) for item in splits["test"]) >= 8000
    for split, num_voices in (("test", 24), ("dev", 8), ("train", 40)):
        assert len({item.voice for item in splits[split]}) >= num_voices


def test_splits_share_no_voice_and_no_sentence(pool):
    _, splits = pool
    assert not set(TRAIN) & set(TEST + DEV) and not set(TEST) & set(DEV)
    texts = {split: {item.text for item in items} for split, items in splits.items()}
    for split in ("dev", "test"):
        assert not texts[split] & (texts["train"] | texts["unlabelled"])
        assert len(texts[split]) == len(splits[split])
    assert not texts["dev"] & texts["test"]
    for split, items in splits.items():
        voices = {item.voice for item in items} | {i.interferer.voice for i in items if i.interferer}
        assert voices <= set(VOICES[split])
    assert all(item.voice != item.interferer.voice for item in splits["train"] if item.interferer)


def test_unseen_names_are_unseen(pool):
    language, splits = pool
    trained = splits["train"] + splits["unlabelled"]
    heard = "|".join(f" {item.text} | {item.interferer.text if item.interferer else ''} " for item in trained)
    for names in LANGUAGES[language].names.values():
        unseen = [name for rank, name in enumerate(names) if is_unseen(rank)]
        assert len(unseen) == len(names) // 5
        assert [name for name in unseen if f" {name} " in heard] == []
    for split in ("dev", "test"):
        named = [item for item in splits[split] if item.names]
        share = np.mean([any(is_unseen(rank) for _, rank, _ in item.names) for item in named])
        assert share == pytest.approx(0.2, abs=0.07)


def test_conditions_have_their_shares_and_ranges(pool):
    plans = pool[1]["train"]

    def share(of) -> float:
        return float(np.mean([bool(of(item)) for item in plans]))

    assert share(lambda i: i.rt60_s) == pytest.approx(0.5, abs=0.03)
    assert share(lambda i: i.interferer) == pytest.approx(0.2, abs=0.03)
    assert share(lambda i: i.wake_word) == pytest.approx(0.5, abs=0.03)
    assert share(lambda i: i.pause_s) == pytest.approx(0.15, abs=0.03)
    assert share(lambda i: i.whisper) == pytest.approx(0.04, abs=0.015)
    assert all(5 <= i.snr_db <= 30 and 130 <= i.rate_wpm <= 210 for i in plans)
    assert all(0.1 <= i.rt60_s <= 0.5 for i in plans if i.rt60_s)
    assert all(8 <= i.interferer.sir_db <= 25 for i in plans if i.interferer)
    assert all(
        0.2 <= i.pause_s <= 0.6 and 0 < i.words_before_pause < len(i.text.split()) for i in plans if i.pause_s
    )
    ranks = Counter(rank for i in plans for kind, rank, _ in i.names if kind == "first_name")
    assert ranks[0] > 5 * max(ranks[40], 1) and any(rank > 45 for rank in ranks)  # a head and a long tail


def test_times_and_levels_of_the_audio(rendered):
    for item, samples_S, custom, _ in rendered:
        duration_s = len(samples_S) / RATE_HZ
        assert samples_S.dtype == np.float32 and 0.001 < np.abs(samples_S).max() <= 0.985
        assert np.array_equal(samples_S * 32768, np.rint(samples_S * 32768))
        assert 0.05 <= custom["speech_start_s"] < custom["speech_end_s"] < duration_s
        assert 0.24 <= duration_s - custom["speech_end_s"] <= 0.51
        if custom["wake_word"]:
            gap_s = custom["speech_start_s"] - custom["wake_word_end_s"]
            assert gap_s == pytest.approx(item.wake_gap_s, abs=0.002)
        assert custom["snr_db"] == item.snr_db and custom["intent"] == item.intent


def test_speech_lies_where_custom_says(rendered):
    item = next(i for i, _, c, _ in rendered if i.wake_word is None and not i.whisper)
    quiet = dataclasses.replace(
        item, snr_db=90.0, interferer=None, rt60_s=None, pause_s=None, words_before_pause=99
    )
    samples_S, custom, _ = render(quiet)
    start, end = int(custom["speech_start_s"] * RATE_HZ), int(custom["speech_end_s"] * RATE_HZ)
    loud = np.flatnonzero(np.abs(samples_S) > 0.01 * np.abs(samples_S).max())
    assert abs(loud[0] - start) < 160 and abs(loud[-1] - end) < 160


def test_snr_is_as_drawn(rendered):
    checked = 0
    for item, *_ in rendered[:12]:
        item = dataclasses.replace(
            item, interferer=None, level_dbfs=-40.0, pause_s=None, words_before_pause=99
        )
        noisy_S, custom, _ = render(item)
        clean_S, *_ = render(dataclasses.replace(item, snr_db=200.0))
        spoken_S = clean_S[int(custom["speech_start_s"] * RATE_HZ) : int(custom["speech_end_s"] * RATE_HZ)]
        snr_db = 10 * np.log10(np.mean(spoken_S**2) / np.mean((noisy_S - clean_S) ** 2))
        assert snr_db == pytest.approx(item.snr_db, abs=0.3)
        assert 10 * np.log10(np.mean(spoken_S**2)) == pytest.approx(-40, abs=0.1)
        checked += 1
    assert checked == 12


def test_whispering_removes_the_pitch(rendered):
    item = next(i for i, *_ in rendered if not i.whisper and i.pause_s is None)
    item = dataclasses.replace(item, snr_db=90.0, interferer=None, rt60_s=None, wake_word=None)

    def periodicity(whisper: bool) -> float:
        samples_S, *_ = render(dataclasses.replace(item, whisper=whisper))
        frames = samples_S[: len(samples_S) // 800 * 800].reshape(-1, 800)
        frames = frames[np.argsort(-np.mean(frames**2, axis=1))[:12]]  # the loudest: vowels
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 1600)) ** 2)
        return float(np.mean(correlation[:, 45:250].max(axis=1) / correlation[:, 0]))

    assert periodicity(True) < 0.75 * periodicity(False)


def test_mixed_languages_and_bad_requests():
    languages = Counter(item.language for item in plan(SyntheticConfig("en+es"), "train", 0.3, 1))
    assert set(languages) == {"en", "es"} and min(languages.values()) > 0.35 * sum(languages.values())
    with pytest.raises(UserError, match="language"):
        SyntheticConfig("tlh")
    with pytest.raises(UserError, match="no split"):
        plan(SyntheticConfig(), "valid", 1, 1)


def test_grammar_syntax():
    language = Language(
        {"go": (1, ["(a|b c) [d] {x=who} {y} $tail"])}, {"y": ["e's"], "tail": ["f|"]}, {"who": ["n"] * 5}
    )
    drawn = [Generator(language).draw(Random(seed)) for seed in range(60)]
    assert {item.text for item in drawn} == {
        f"{head}{option} n e's{tail}" for head in ("a", "b c") for option in ("", " d") for tail in ("", " f")
    }
    assert drawn[0].slots == {"x": "n", "y": "e's"} and drawn[0].names[0][0] == "who"
    with pytest.raises(ValueError, match="unbalanced"):
        Generator(Language({"go": (1, ["(a"])}, {}, {}))
