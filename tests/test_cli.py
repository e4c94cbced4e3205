"""The `sotto` command: what it prints, for what it apologises, how fast its help is."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from pipeline import cli
from pipeline.compression.compressor import Compressor, CompressorConfig
from pipeline.corpus.tokenizer import Tokenizer, train_tokenizer
from pipeline.errors import UserError
from pipeline.evaluation.inspect import describe
from pipeline.features.fbank import FbankConfig
from pipeline.models.transducer import build_transducer
from pipeline.runtime import recognise
from pipeline.runtime.audio import read_audio
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.bundle_model import write_packed

TEXTS = ["call mum", "turn on the kitchen lamp", "play some music", "set a timer for ten minutes"] * 8


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A packed recogniser with random weights: what it says means nothing, how it says it does."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(train_tokenizer(TEXTS, 40))
    config = {
        "encoder": {"name": "lstm", "num_layers": 1, "width": 16},
        "predictor": {"width": 16},
        "joiner_width": 16,
        "vocab_size": tokenizer.vocab_size,
        "num_mel_bins": 64,
    }
    model = build_transducer(config)
    tensors = Compressor(model, CompressorConfig(levels=15, sparsity=None)).convert(model)
    path = tmp_path_factory.mktemp("model") / "model.sotto"
    write_packed(path, config, tensors, tokenizer, FbankConfig())
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The same noise as a 16 kHz mono, a 44.1 kHz stereo and an 8 kHz file, and files that are no audio."""
    folder = tmp_path_factory.mktemp("audio")
    generator = np.random.default_rng(0)
    noise_S = 0.1 * generator.standard_normal(44_100).astype(np.float32)
    soundfile.write(folder / "mono.wav", noise_S[:16_000], 16_000)
    soundfile.write(folder / "stereo.flac", np.stack([noise_S, noise_S], axis=1), 44_100)
    soundfile.write(folder / "phone.wav", noise_S[:8_000], 8_000)
    soundfile.write(folder / "empty.wav", noise_S[:0], 16_000)
    (folder / "text.wav").write_text("this is no audio")
    return folder


@pytest.fixture
def sotto(model_file):
    """Run the command in this process: sotto("transcribe", file, …) -> (exit code, stdout, stderr)."""

    def run(*arguments):
        if arguments[0] == "transcribe":
            arguments = (*arguments, "--model", model_file)
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        if isinstance(result.exception, UserError):
            return 2, result.stdout, str(result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


def test_help_imports_nothing_heavy():
    heavy = ("torch", "pandas", "mlflow", "lhotse", "numpy")
    code = f"import sys, pipeline.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_several_files_of_any_rate_and_channel_count(sotto, recordings):
    files = [recordings / name for name in ("mono.wav", "stereo.flac", "phone.wav")]
    code, output, _ = sotto("transcribe", *files)
    assert code == 0
    assert [line.split("\t")[0] for line in output.splitlines()] == [str(file) for file in files]


def test_json_has_text_tokens_confidence_duration_and_speed(sotto, recordings):
    code, output, _ = sotto("transcribe", "--json", recordings / "mono.wav", recordings / "stereo.flac")
    records = [json.loads(line) for line in output.splitlines()]
    assert code == 0 and len(records) == 2
    for record in records:
        assert set(record) == {"file", "text", "tokens", "confidence", "duration_s", "rtf"}
        assert record["duration_s"] == pytest.approx(1.0, abs=0.01)
        assert 0 < record["confidence"] <= 1 and record["rtf"] > 0
        times = [token["time_s"] for token in record["tokens"]]
        assert times == sorted(times) and all(0 < t <= 1.01 for t in times)


def test_a_bad_file_is_a_sentence_and_the_others_are_still_done(sotto, recordings):
    files = [recordings / name for name in ("absent.wav", "text.wav", "mono.wav", "empty.wav")]
    code, output, errors = sotto("transcribe", *files)
    assert code == 2
    assert output.startswith(str(recordings / "mono.wav"))
    lines = errors.splitlines()
    assert len(lines) == 3 and all(line.startswith("sotto: ") for line in lines)
    assert "no such file" in lines[0] and "not a readable audio file" in lines[1] and "0.00 s" in lines[2]


@pytest.mark.parametrize("damage", ["cut off", "wrong byte", "no packed file", "absent"])
def test_a_corrupt_model_is_a_sentence_with_exit_code_2(damage, model_file, recordings, tmp_path):
    data = bytearray(model_file.read_bytes())
    path = tmp_path / "broken.sotto"
    if damage == "cut off":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "wrong byte":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "no packed file":
        path.write_bytes(b"RIFF" + bytes(100))
    for command in (["inspect", path], ["transcribe", recordings / "mono.wav", "--model", path]):
        result = CliRunner().invoke(cli.app, [str(part) for part in command])
        assert isinstance(result.exception, UserError) and str(path) in str(result.exception)


def test_main_turns_errors_into_exit_code_2_without_traceback(tmp_path):
    command = [sys.executable, "-m", "pipeline.cli", "inspect", str(tmp_path / "absent.sotto")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("sotto: ") and "Traceback" not in done.stderr


def test_inspect_adds_up(sotto, model_file):
    code, output, _ = sotto("inspect", model_file, "--json")
    description = json.loads(output)
    assert code == 0 and description == json.loads(json.dumps(describe(model_file)))
    assert sum(description["sections"].values()) == description["bytes"] == model_file.stat().st_size
    assert description["bits_per_weight"] == pytest.approx(8 * description["bytes"] / description["params"])
    code, output, _ = sotto("inspect", model_file)
    assert code == 0 and "section weights" in output and f"{description['bytes']:,} bytes" in output


def test_default_model_is_the_last_run_then_the_release(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "ROOT", tmp_path / "elsewhere")
    monkeypatch.setattr(cli, "RELEASED_MODEL", tmp_path / "release/model.sotto")
    with pytest.raises(UserError, match="make repro"):
        cli.default_model()
    for path in (cli.RELEASED_MODEL, tmp_path / cli.RUN_MODEL):
        path.parent.mkdir(parents=True)
        path.touch()
    assert cli.default_model() == cli.RUN_MODEL


def test_one_utterance_alone_says_what_it_says_in_a_batch(model_file, recordings):
    """Padding of a batch must not change a short utterance's words."""
    packed = load_packed(model_file)
    samples = [read_audio(recordings / name) for name in ("mono.wav", "phone.wav", "stereo.flac")]
    samples[1] = samples[1][:5000]
    features = [recognise.fbank(torch.from_numpy(s)[None], packed.fbank_config)[0] for s in samples]
    together = recognise.decode_many(packed.model, features, [0] * len(features))
    for one, result in zip(samples, together, strict=True):
        alone = recognise.transcribe(packed, one)
        assert alone.text == packed.tokenizer.decode(result.tokens)
        assert alone.confidence == pytest.approx(recognise.confidence(result), rel=1e-4)
