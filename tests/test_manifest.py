"""Real speech: every bad line is named with its reason, splits keep speakers apart, recipes fit in."""

import json
from collections import Counter
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import recipes

from pipeline.corpus.manifest import Row, assign_splits, by_split, normalise_text, read_manifest, render_row
from pipeline.corpus.noise import noisy_copies, render_noisy
from pipeline.corpus.public import CORPORA, read_public
from pipeline.corpus.shards import RejectedUtterance
from pipeline.errors import UserError


def write_wav(path: Path, seconds: float = 0.5, rate: int = 16000, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, samples, rate, format=path.suffix[1:].upper())
    return path


def row(**changes) -> dict:
    """A good line for a.wav of 0.5 s."""
    good = {
        "id": "a",
        "audio": "a.wav",
        "text": "lights on",
        "speaker": "s",
        "language": "en",
        "duration": 0.5,
    }
    return {**good, "split": "train", **changes}


def write_manifest(folder: Path, rows: list) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in rows))
    return path


BAD_LINES = {
    "not valid JSON": '{"id": "x", "audio": ',
    "not a JSON object": "[1, 2]",
    "no audio": {"id": "x", "text": "hi", "duration": 1},
    "missing file": row(id="x", audio="absent.wav"),
    "unreadable audio": row(id="x", audio="text.wav"),
    "no samples": row(id="x", audio="empty.wav"),
    "lasts 0.500 s": row(id="x", duration=0.9),
    "not positive": row(id="x", duration=-0.5),
    "0 s is not positive": row(id="x", duration=0),
    "not a number": row(id="x", duration="long"),
    "NaN": '{"id": "x", "audio": "a.wav", "text": "hi", "duration": NaN}',
    "empty text": row(id="x", text=" ... "),
    "no text; write null": {"id": "x", "audio": "a.wav", "duration": 0.5},
    "no text in a dev row": row(id="x", text=None, split="dev"),
    "duplicate id": row(text="another"),
    "unknown split 'eval'": row(id="x", split="eval"),
    "the id cannot name": row(id="../x/./y"),
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_is_rejected_with_its_number_and_reason(tmp_path, reason):
    write_wav(tmp_path / "a.wav")
    write_wav(tmp_path / "empty.wav", seconds=0)
    (tmp_path / "text.wav").write_text("not a wave file")
    path = write_manifest(tmp_path, [row(), "", BAD_LINES[reason]])
    rows, rejected, counts = read_manifest(path, ["en"])
    assert [r.id for r in rows] == ["a"] and rows[0].text == "lights on" and not counts
    assert len(rejected) == 1 and rejected[0]["line"] == 3 and rejected[0]["file"] == "manifest.jsonl"
    if reason != "NaN":
        assert reason in rejected[0]["reason"]


def test_bytes_that_are_no_utf8_are_a_bad_line(tmp_path):
    write_wav(tmp_path / "a.wav")
    path = write_manifest(tmp_path, [row()])
    path.write_bytes(b'{"id": "\xff\xfe"}\n' + path.read_bytes())
    rows, rejected, _ = read_manifest(path, ["en"])
    assert len(rows) == 1 and rejected[0]["line"] == 1 and "JSON" in rejected[0]["reason"]


def test_nothing_usable_is_one_sentence(tmp_path):
    path = write_manifest(tmp_path, [row(), "{"])
    with pytest.raises(
        UserError, match=r"no usable line \(2 rejected, 0 filtered; first: line 1, missing file"
    ):
        read_manifest(path, ["en"])
    with pytest.raises(UserError, match=r"cannot read this manifest"):
        read_manifest(tmp_path / "absent.jsonl", ["en"])


def test_nemo_lines_and_filters(tmp_path):
    for name in ("x/a.wav", "x/b.wav", "c.wav"):
        write_wav(tmp_path / name)
    lines = [
        {"audio_filepath": "x/a.wav", "duration": 0.5, "text": "Turn it ON!"},
        {"audio_filepath": str(tmp_path / "x/b.wav"), "duration": 0.5, "text": "b"},
        row(id="c", audio="c.wav", language="de"),
    ]
    rows, rejected, counts = read_manifest(write_manifest(tmp_path, lines), ["en"])
    assert [r.id for r in rows] == ["x/a", str(tmp_path / "x/b").strip("/")]
    assert rows[0].text == "turn it on" and rows[0].speaker == "x/a" and rows[0].language == "en"
    assert not rejected and counts == {"other_language": 1}
    with pytest.raises(UserError, match="first: line 1, no language"):
        read_manifest(write_manifest(tmp_path, lines[:2]), ["en", "es"])


def test_source_filter_and_unlabelled_rows(tmp_path):
    write_wav(tmp_path / "a.wav")
    more = {"id": "u2", "audio": "a.wav", "text": None, "split": "train", "speaker": "t"}
    (tmp_path / "unlabelled.jsonl").write_text(json.dumps(more) + "\n")
    lines = [row(source="one"), row(id="b", source="two"), row(id="u1", text=None, source="one")]
    rows, _, counts = read_manifest(write_manifest(tmp_path, lines), ["en"], ["one"])
    assert {r.id: r.split for r in rows} == {"a": "train", "u1": "unlabelled", "u2": "unlabelled"}
    assert counts == {"other_source": 1}


def made(speaker: str, split: str, seconds: float = 1.0, number: int = 0, source: str = "") -> Row:
    return Row(1, f"{speaker}-{number}", Path("x"), "t", speaker, "en", seconds, split, source)


def test_rows_without_split_are_divided_by_speaker():
    rows = assign_splits([made(f"s{n}", "", number=k) for n in range(200) for k in range(2)])
    speakers = {split: {r.speaker for r in part} for split, part in by_split(rows)}
    assert not (speakers["train"] & speakers["dev"] or speakers["train"] & speakers["test"])
    assert not speakers["dev"] & speakers["test"]
    assert 130 < len(speakers["train"]) < 185 and len(speakers["dev"]) > 5 and len(speakers["test"]) > 5
    assert assign_splits(list(reversed(rows))) == list(reversed(rows))


def test_few_speakers_are_divided_by_utterance():
    rows = assign_splits([made("only", "", number=k) for k in range(200)])
    assert all(len(part) > 5 for split, part in by_split(rows) if split != "unlabelled")


def test_without_a_test_part_dev_speakers_are_dealt_out():
    rows = [made("t", "train")]
    rows += [made(f"d{n}", "dev", seconds=10.0 - n, source="x") for n in range(8)] + [
        made("e", "dev", source="y")
    ]
    divided = assign_splits(rows)
    seconds = Counter()
    for r in divided:
        seconds[r.split, r.source] += r.duration_s
    assert [r.split for r in divided if r.speaker == "e"] == ["test"]
    assert abs(seconds["test", "x"] - seconds["dev", "x"]) <= 4.0 and seconds["train", ""] == 1.0
    kept = [*rows, made("z", "test")]
    assert assign_splits(kept) == kept


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Don't STOP, please!", "don't stop please"),
        ("caf\u0065\u0301 \u2019tis", "caf\u00e9 'tis"),
        (" a_b - ' c ", "a b c"),
        ("¿Qué?", "qué"),
        ("?!", ""),
    ],
)
def test_text_is_normalised(text, expected):
    assert normalise_text(text) == expected == normalise_text(expected)


def rows_of(folder: Path, **changes) -> list[Row]:
    return read_manifest(write_manifest(folder, [row(**changes)]), ["en"])[0]


def test_another_rate_is_resampled_and_noted(tmp_path):
    seconds = np.arange(4000) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 440 * seconds)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], 1), 8000)
    utterance, samples_S = render_row(rows_of(tmp_path)[0])
    assert utterance.custom["resampled_from_hz"] == 8000 and samples_S.dtype == np.float32
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    assert np.abs(samples_S - expected)[400:-400].max() < 1e-3


@pytest.mark.parametrize(
    "fault, reason", [("zeros", "all zeros"), ("nan", "no numbers"), ("cut", "unreadable|breaks off")]
)
def test_bad_samples_are_rejected_when_rendered(tmp_path, fault, reason):
    samples = {"zeros": np.zeros(8000), "nan": np.full(8000, np.nan), "cut": np.ones(8000)}[fault]
    suffix = "flac" if fault == "cut" else "wav"
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).standard_normal(8000) * 0.1 if fault == "cut" else samples
    soundfile.write(path, noise, 16000, subtype="PCM_16" if fault == "cut" else "FLOAT")
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:6000])
    rows = rows_of(tmp_path, audio=path.name)
    with pytest.raises(RejectedUtterance) as caught:
        render_row(rows[0])
    assert caught.value.args[0]["line"] == 1 and caught.value.args[0]["id"] == "a"
    assert any(part in caught.value.args[0]["reason"] for part in reason.split("|"))


def test_noisy_copies_repeat_and_hold_their_snr(tmp_path):
    write_wav(tmp_path / "a.wav", seconds=2.0, seed=1)
    write_wav(tmp_path / "n.wav", seconds=0.7, seed=2)
    listing = [{"audio": "n.wav", "kind": "noise"}]
    (tmp_path / "noise.jsonl").write_text("\n".join(map(json.dumps, listing)))
    rows = rows_of(tmp_path, duration=2.0)
    copies = noisy_copies(rows, tmp_path / "manifest.jsonl", 3, seed=1)
    assert [copy.row.id for copy in copies] == ["a-noisy1", "a-noisy2", "a-noisy3"]
    assert copies == noisy_copies(rows, tmp_path / "manifest.jsonl", 3, seed=1)
    assert copies != noisy_copies(rows, tmp_path / "manifest.jsonl", 3, seed=2)
    _, clean_S = render_row(rows[0])
    for copy in copies:
        utterance, mixed_S = render_noisy(copy)
        snr_db = 10 * np.log10(np.sum(clean_S**2) / np.sum((mixed_S - clean_S) ** 2))
        assert snr_db == pytest.approx(copy.snr_db, abs=0.3) and utterance.custom["snr_db"] == copy.snr_db
        assert np.array_equal(mixed_S, render_noisy(copy)[1])
    with pytest.raises(UserError, match="noise.jsonl"):
        noisy_copies(rows, tmp_path / "elsewhere" / "manifest.jsonl", 1, seed=1)


def test_a_room_keeps_the_level_and_adds_a_tail(tmp_path):
    write_wav(tmp_path / "a.wav", seconds=1.0)
    write_wav(tmp_path / "n.wav")
    response = np.random.default_rng(0).standard_normal(4000) * np.exp(-np.arange(4000) / 800)
    soundfile.write(tmp_path / "r.wav", response / 5, 16000)
    listing = [{"audio": "n.wav", "kind": "noise"}, {"audio": "r.wav", "kind": "rir"}]
    (tmp_path / "noise.jsonl").write_text("\n".join(map(json.dumps, listing)))
    rows = rows_of(tmp_path, duration=1.0)
    copies = noisy_copies(rows, tmp_path / "manifest.jsonl", 12, seed=1)
    assert {copy.room is None for copy in copies} == {True, False}
    copy = next(copy for copy in copies if copy.room is not None)
    (_, clean_S), (utterance, mixed_S) = render_row(rows[0]), render_noisy(copy)
    assert len(mixed_S) == len(clean_S) and utterance.custom["room"] == "r"
    assert 0.8 < np.std(mixed_S) / np.std(clean_S) < 1.3 and np.abs(mixed_S).max() < 1.0


def librispeech(folder: Path) -> Path:
    """Three parts in LibriSpeech's layout; one utterance has no words."""
    for part, speaker in (("train-clean-100", "19"), ("dev-clean", "84"), ("test-clean", "61")):
        chapter = folder / part / speaker / "7"
        for number in range(2):
            write_wav(chapter / f"{speaker}-7-{number:04d}.flac", seed=number)
        words = ["IT'S A TEST", "." if part == "train-clean-100" else "OF SPEECH"]
        lines = [f"{speaker}-7-{number:04d} {text}" for number, text in enumerate(words)]
        (chapter / f"{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_librispeech_through_its_recipe(tmp_path):
    rows, rejected, _ = read_public("librispeech", str(librispeech(tmp_path / "LibriSpeech")), ["en"])
    assert {split: len(part) for split, part in by_split(rows)} == {
        "train": 1,
        "unlabelled": 0,
        "dev": 2,
        "test": 2,
    }
    first = next(r for r in rows if r.id == "19-7-0000")
    assert (first.text, first.speaker, first.duration_s, first.source) == (
        "it's a test",
        "19",
        0.5,
        "librispeech",
    )
    assert rejected == [{"file": "train-clean-100", "line": None, "id": "19-7-0001", "reason": "empty text"}]
    utterance, samples_S = render_row(first)
    assert utterance.id == "19-7-0000" and samples_S.shape == (8000,)


def test_public_corpora_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="'voices' is unknown; use synthetic, manifest or one of librispeech"):
        read_public("voices", str(tmp_path), ["en"])
    with pytest.raises(UserError, match="is no folder"):
        read_public("librispeech", str(tmp_path / "absent"), ["en"])
    for name in CORPORA:
        with pytest.raises(UserError, match=r"does not look like|no usable utterance"):
            read_public(name, str(tmp_path), ["en"])


def test_every_public_corpus_has_its_recipe():
    for name in CORPORA:
        assert next(iter(signature(getattr(recipes, f"prepare_{name}")).parameters))
