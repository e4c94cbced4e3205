"""Tokenizer, shards, batches and the preparation of a corpus."""

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet
from safetensors.torch import load_file

from pipeline.corpus.datamodule import SILENCE, SpeechDataModule, batches, trainable
from pipeline.corpus.prepare import DataConfig, PrepareConfig, open_source, prepare_corpus, render
from pipeline.corpus.shards import (
    RejectedUtterance,
    Utterance,
    load_cuts,
    load_feature_matrix,
    open_workers,
    write_split,
)
from pipeline.corpus.tokenizer import BLANK, UNKNOWN, Tokenizer, train_tokenizer
from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig, fbank

WORDS = (
    "turn the kitchen light on off call maria play some jazz what's next set a timer for ten minutes".split()
)
TEXTS = [" ".join(WORDS[(i * 7 + j) % len(WORDS)] for j in range(2 + i % 5)) for i in range(80)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(TEXTS, 64))


def test_tokenizer_training_repeats_byte_for_byte():
    assert train_tokenizer(TEXTS, 64) == train_tokenizer(iter(TEXTS), 64)
    assert train_tokenizer(TEXTS, 64) != train_tokenizer(TEXTS, 60)


def test_tokenizer_keeps_text_and_reserves_its_ids(tokenizer):
    assert tokenizer.vocab_size == len(tokenizer.pieces) == 64
    assert [piece for piece, _ in tokenizer.pieces[:2]] == [BLANK, UNKNOWN]
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and min(ids) > 1
        assert tokenizer.decode([0, *ids, 0]) == text
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""
    assert 1 in tokenizer.encode("\u00f1") and tokenizer.decode(tokenizer.encode("\u00f1")) == ""


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="abcdefghijklmnopqrstuvwxyz '\u00f1\u00e9\u2581", max_size=40))
def test_pieces_rebuild_the_tokenizer(tokenizer, text):
    pieces = json.loads(json.dumps(tokenizer.pieces))  # as a bundle's header stores them
    rebuilt = Tokenizer.from_pieces([(piece, score) for piece, score in pieces])
    assert rebuilt.encode(text) == tokenizer.encode(text)
    assert rebuilt.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert rebuilt.hash == tokenizer.hash


def test_tokenizer_errors_are_one_sentence(tmp_path, tokenizer):
    with pytest.raises(UserError, match="prepare.vocab_size: 5000 tokens do not fit"):
        train_tokenizer(TEXTS, 5000)
    for content in (b"", b"no model", tokenizer._processor.serialized_model_proto()[:200]):
        (tmp_path / "t.model").write_bytes(content)
        with pytest.raises(UserError, match="t.model"):
            Tokenizer.from_model(tmp_path / "t.model")
    with pytest.raises(UserError, match="absent"):
        Tokenizer.from_model(tmp_path / "absent")
    with pytest.raises(UserError, match="must begin with"):
        Tokenizer.from_pieces([("a", 0.0), ("b", 0.0)])


def render_noise(number: int) -> tuple[Utterance, np.ndarray]:
    """Utterance `number`: 0.3 to 2.3 s of noise."""
    rng = np.random.default_rng(number)
    samples_S = (0.1 * rng.standard_normal(4800 + int(rng.integers(32000)))).astype(np.float32)
    custom = {"snr_db": 7.5, "intent": "light", "names": ["maria"], "pause_s": None}
    return Utterance(f"utt.{number}", TEXTS[number % 80], f"s{number % 5}", "en", custom), samples_S


def write(folder: Path, count: int = 40, **options):
    options = {"with_audio": False, "fbank_config": FbankConfig(), "shard_size": 16, **options}
    return write_split(folder, range(count), render_noise, **options)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "train"
    write(folder, 60)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_what_was_rendered(tmp_path):
    summary = write(tmp_path / "dev", with_audio=True)
    names = sorted(path.name for path in (tmp_path / "dev").iterdir())
    assert names == sorted(
        f"{kind}.{n:06d}.{end}"
        for kind, end in [("cuts", "jsonl.gz"), ("features", "tar"), ("recording", "tar")]
        for n in range(3)
    )
    cuts = list(load_cuts(tmp_path / "dev", with_audio=True))
    assert [cut.id for cut in cuts] == [f"utt.{number}" for number in range(40)]
    for number in (0, 15, 16, 39):
        cut, (utterance, samples_S) = cuts[number], render_noise(number)
        supervision = cut.supervisions[0]
        assert (supervision.text, supervision.speaker, supervision.custom) == (
            utterance.text,
            utterance.speaker,
            utterance.custom,
        )
        expected_NF = fbank(torch.from_numpy(samples_S)[None])[0].half().numpy()
        assert np.array_equal(load_feature_matrix(cut), expected_NF)
        assert np.array_equal(cut.load_features(), expected_NF), "lhotse reads the same"
        assert np.abs(cut.load_audio()[0] - samples_S).max() < 1e-4
    assert summary.hours == pytest.approx(sum(cut.duration for cut in cuts) / 3600, rel=0.01)


def test_shards_are_lhotses_own_format(split):
    cuts = list(CutSet.from_shar(in_dir=split))
    assert len(cuts) == 60 and cuts[7].load_features().dtype == np.float16


def test_same_utterances_same_bytes_and_digest(tmp_path, split):
    again = write(tmp_path / "again", 60)
    assert contents(tmp_path / "again") == contents(split)
    assert again.digest == write(tmp_path / "b", 60).digest != write(tmp_path / "c", 59).digest


def test_worker_processes_give_the_same_bytes(tmp_path):
    rows = []
    for number in range(12):
        utterance, samples_S = render_noise(number)
        soundfile.write(tmp_path / f"{number}.wav", samples_S, 16000)
        duration = len(samples_S) / 16000
        rows.append({"audio_filepath": f"{number}.wav", "duration": duration, "text": utterance.text})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    from pipeline.corpus.manifest import read_manifest

    items = read_manifest(tmp_path / "m.jsonl", ["en"])[0]
    options = {"with_audio": True, "fbank_config": FbankConfig()}
    with open_workers(2) as workers:
        write_split(tmp_path / "two", items, render, workers=workers, **options)
    write_split(tmp_path / "none", items, render, **options)
    assert contents(tmp_path / "two") == contents(tmp_path / "none")


def test_hidden_text_and_rejected_utterances(tmp_path):
    def render_some(number):
        if number == 3:
            raise RejectedUtterance({"id": "three", "reason": "no sound"})
        utterance, samples_S = render_noise(number)
        return utterance, samples_S[: 79 if number == 5 else None]

    summary = write_split(
        tmp_path / "u", range(8), render_some, with_audio=False, hide_text=True, fbank_config=FbankConfig()
    )
    assert [entry["id"] for entry in summary.rejected] == ["three", "utt.5"]
    cuts = list(load_cuts(tmp_path / "u"))
    assert len(cuts) == 6 and all(cut.supervisions[0].text is None for cut in cuts)
    assert cuts[0].supervisions[0].custom["hidden_text"] == TEXTS[0]


def test_an_interrupted_split_leaves_the_old_one(tmp_path):
    write(tmp_path / "train", 20)
    before = contents(tmp_path / "train")

    def render_and_fail(number):
        if number == 18:
            raise KeyboardInterrupt
        return render_noise(number + 100)

    with pytest.raises(KeyboardInterrupt):
        write_split(
            tmp_path / "train", range(20), render_and_fail, with_audio=False, fbank_config=FbankConfig()
        )
    assert contents(tmp_path / "train") == before
    write(tmp_path / "train", 20)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_a_folder_that_is_no_split(tmp_path, split):
    with pytest.raises(UserError, match="nowhere"):
        load_cuts(tmp_path / "nowhere")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "cuts.000000.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="dvc repro prepare"):
        load_cuts(tmp_path / "half")
    write(tmp_path / "empty", 0)
    assert len(load_cuts(tmp_path / "empty")) == 0


def test_statistics_are_those_of_all_frames(tmp_path):
    summary = write(tmp_path / "x", 10)
    frames_NF = torch.cat([fbank(torch.from_numpy(render_noise(n)[1])[None])[0] for n in range(10)])
    mean_F, std_F = summary.statistics()
    assert torch.allclose(mean_F, frames_NF.mean(0), atol=1e-4)
    assert torch.allclose(std_F, frames_NF.std(0, correction=0), atol=1e-4)


def ids_of(loader) -> list[list[str]]:
    return [[cut.id for cut in batch.utterances] for batch in loader]


def test_an_epoch_has_every_utterance_once_and_respects_the_seconds(split, tokenizer):
    cuts = load_cuts(split)
    loader = batches(cuts, tokenizer, 8.0, seed=3, shuffle=True, num_buckets=4)
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        seen = [cut.id for batch in loader for cut in batch.utterances]
        assert sorted(seen) == sorted(cut.id for cut in cuts)
    for batch in loader:
        longest = max(cut.duration for cut in batch.utterances)
        assert longest * len(batch.utterances) <= 8.0 + longest
        assert [cut.id for cut in batch.utterances] and batch.features_BNF.shape[2] == 64


def test_the_order_depends_on_seed_and_epoch_alone(split, tokenizer):
    def order(seed: int, epoch: int, before: int = 0):
        loader = batches(load_cuts(split), tokenizer, 8.0, seed=seed, shuffle=True, num_buckets=4)
        for earlier in range(before):
            loader.sampler.set_epoch(earlier)
            ids_of(loader)
        loader.sampler.set_epoch(epoch)
        return ids_of(loader)

    assert order(1, 2) == order(1, 2, before=2), "a resumed epoch equals an uninterrupted one"
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_a_batch_is_padded_cuts(split, tokenizer):
    batch = next(iter(batches(load_cuts(split), tokenizer, 20.0)))
    assert len(batch.utterances) > 2 and batch.features_BNF.dtype == torch.float32
    assert batch.tokens_BU.dtype == batch.feature_lengths_B.dtype == torch.int64
    for row, cut in enumerate(batch.utterances):
        length, count = batch.feature_lengths_B[row], batch.token_lengths_B[row]
        expected_NF = torch.from_numpy(cut.load_features()).float()
        assert torch.equal(batch.features_BNF[row, :length], expected_NF)
        assert torch.allclose(batch.features_BNF[row, length:], torch.tensor(SILENCE), atol=0.01)
        assert tokenizer.decode(batch.tokens_BU[row, :count].tolist()) == cut.supervisions[0].text
        assert not batch.tokens_BU[row, count:].any()
    assert batch.features_BNF.shape[1] == batch.feature_lengths_B.max()
    assert batch.tokens_BU.shape[1] == batch.token_lengths_B.max()
    moved = batch.to("meta")
    assert moved.features_BNF.device.type == moved.tokens_BU.device.type == "meta"
    assert moved.utterances is batch.utterances and moved.targets is None


def test_labels_replace_transcripts_and_targets_are_asked_for(split, tokenizer):
    asked = []

    def targets(ids, num_utterances, num_frames, num_nodes):
        asked.append((ids, num_utterances, num_frames, num_nodes))
        return torch.ones(1)

    labels = {"utt.0": [5, 6, 7]}
    cuts = [cut for cut in load_cuts(split) if cut.id in ("utt.0", "utt.1")]
    batch = next(iter(batches(cuts, tokenizer, 60.0, labels=labels, targets=targets)))
    row = [cut.id for cut in batch.utterances].index("utt.0")
    assert batch.tokens_BU[row, :3].tolist() == [5, 6, 7] and batch.token_lengths_B[row] == 3
    frames, nodes = batch.features_BNF.shape[1] // 8, batch.tokens_BU.shape[1] + 1
    assert asked == [([cut.id for cut in batch.utterances], 2, frames, nodes)]
    assert torch.equal(batch.to("cpu").targets, torch.ones(1))


def test_trainable_needs_a_frame_per_label(split):
    cuts = list(load_cuts(split))[:2]
    frames = cuts[0].features.num_frames // 8
    assert trainable(cuts[:1], lambda cut: [2] * frames) == cuts[:1]
    assert trainable(cuts[:1], lambda cut: [2] * (frames + 1)) == []
    cuts[1].features.num_frames = 7
    assert trainable(cuts[1:], lambda cut: []) == []


def test_one_utterance_makes_an_epoch(split, tokenizer):
    assert ids_of(batches(list(load_cuts(split))[:1], tokenizer, 10.0, shuffle=True)) == [["utt.0"]]


def test_no_utterances_is_one_sentence(tokenizer):
    with pytest.raises(UserError, match="no utterances"):
        batches([], tokenizer, 10.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared manifest of 70 utterances: one broken, one with far too long a text."""
    folder = tmp_path_factory.mktemp("real")
    rows = []
    for number in range(70):
        utterance, samples_S = render_noise(number)
        samples_S = np.tile(samples_S, 6)
        soundfile.write(folder / f"{number}.wav", samples_S, 16000)
        part = "train" if number < 40 else "unlabelled" if number < 50 else "dev" if number < 60 else "test"
        text = None if part == "unlabelled" else " ".join(TEXTS[:40]) if number == 1 else utterance.text
        speaker = f"{part}{number % 5}"
        rows.append({"id": f"r{number}", "audio": f"{number}.wav", "text": text, "split": part})
        rows[-1] |= {"speaker": speaker, "duration": len(samples_S) / 16000, "language": "en"}
    (folder / "3.wav").write_bytes((folder / "3.wav").read_bytes()[:30])
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(source="manifest", manifest=str(folder / "m.jsonl"))
    config = PrepareConfig(vocab_size=64, num_workers=0, shard_size=16)
    result = prepare_corpus(data, config, FbankConfig(), 7, folder / "prepare")
    return folder / "prepare", result


def test_prepare_corpus_from_a_manifest(prepared):
    folder, result = prepared
    metrics = result.metrics
    assert [metrics[f"utterances/{split}"] for split in ("train", "unlabelled", "dev", "test")] == [
        39,
        10,
        10,
        10,
    ]
    assert metrics["rejected"] == 1 and metrics["speakers_unseen/test"] == metrics["speakers/test"] == 5
    assert metrics["words/unlabelled"] == 0 < metrics["words/train"]
    assert json.loads((folder / "rejected.jsonl").read_text())["line"] == 4
    statistics = load_file(folder / "statistics.safetensors")
    assert (
        statistics["mean_F"].shape == statistics["std_F"].shape == (64,) and (statistics["std_F"] > 0).all()
    )
    assert Tokenizer.from_model(folder / "tokenizer.model").hash == result.tokenizer_hash
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_synthetic_speech_and_noisy_copies_join_real_training_data(prepared, tmp_path):
    folder, _ = prepared
    (folder.parent / "noise.jsonl").write_text('{"audio": "60.wav", "kind": "noise"}')
    data = DataConfig(
        source="manifest", manifest=str(folder.parent / "m.jsonl"), synthetic_hours=0.003, noise_copies=1
    )
    items = open_source(data, seed=7).items
    kinds = [type(item).__name__ for item in items["train"]]
    assert kinds[:78] == ["Row"] * 39 + ["NoisyRow"] * 39 and set(kinds[78:]) == {"UtterancePlan"}
    assert {type(item).__name__ for split in ("dev", "test") for item in items[split]} == {"Row"}
    ids = [render(items["train"][index])[0].id for index in (0, 39)]
    assert ids == ["r0", "r0-noisy1"]


def test_data_module_counts_what_it_leaves_out(prepared):
    folder, _ = prepared
    module = SpeechDataModule(folder, batch_seconds=10.0, seed=1, train_splits=("train", "unlabelled"))
    assert (len(module.train_cuts), module.num_dropped, module.num_unlabelled) == (38, 1, 10)
    labelled = SpeechDataModule(
        folder, batch_seconds=10.0, train_splits=("unlabelled",), labels={"r40": [3, 4]}
    )
    assert [cut.id for cut in labelled.train_cuts] == ["r40"]
    steps = 0
    for epoch in range(2):
        module.train_dataloader().sampler.set_epoch(epoch)
        steps += sum(1 for _ in module.train_dataloader())
    assert steps == module.count_batches(2)
    assert sum(len(batch.utterances) for batch in module.evaluation_loader("test")) == 10
    assert len([cut for batch in module.val_dataloader() for cut in batch.utterances]) == 10


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"source": "manifest"}, "data.manifest is missing"),
        ({"source": "librispeech"}, "data.corpus_dir is missing"),
        ({"noise_copies": 2}, "data.noise_copies: 2 is impossible"),
        ({"source": "manifest", "manifest": "x", "synthetic_hours": -1.0}, "data.synthetic_hours: -1.0"),
    ],
)
def test_impossible_data_configurations(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(DataConfig(), **changes)
