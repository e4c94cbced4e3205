"""ONNX files: each graph gives torch's numbers, sherpa-onnx hears what we hear, mistakes leave nothing behind."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from pipeline import cli
from pipeline.decoding.greedy import greedy
from pipeline.errors import UserError
from pipeline.evaluation import sherpa
from pipeline.models.transducer import build_transducer
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.bundle_model import write_packed
from pipeline.runtime.export import FILES, export
from pipeline.runtime.recognise import transcribe
from pipeline.tracking.handoff import write_handoff
from tests.test_bundle import FEATURES, converted, model_config, speech_like, tokenizer

__all__ = ["tokenizer"]  # a fixture
NUM_LAYERS, WIDTH = 2, 24


@pytest.fixture(scope="module", params=[None, (4, 6)], ids=["plain", "convolutional"])
def model_file(request, tmp_path_factory, tokenizer):
    """A first layer narrower than the others, and statistics that are not 0 and 1."""
    config = model_config(width=WIDTH, num_layers=NUM_LAYERS)
    config["encoder"] |= {"input_width": 18, "channels": request.param}
    tensors = converted(config)
    tensors["feature_mean_F"] = torch.linspace(-8.0, -2.0, 16).half().float()
    tensors["feature_scale_F"] = torch.linspace(0.3, 0.6, 16).half().float()
    del tensors["joiner.output.bias.scale"]  # stored as float16 then
    tensors["joiner.output.bias"][1] = -30.0  # a trained model never says <unk>, sherpa-onnx's other blank
    path = tmp_path_factory.mktemp("export") / "model.sotto"
    write_packed(path, config, tensors, tokenizer, FEATURES)
    return path


@pytest.fixture(scope="module")
def exported(model_file):
    """(loaded packed file, folder with its export)."""
    packed = load_packed(model_file)
    folder = model_file.parent / "onnx"
    sizes = export(packed.model, packed.tokenizer, folder)
    assert sizes == {name: (folder / name).stat().st_size for name in FILES}
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    return packed, folder


def session(folder, name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / f"{name}.onnx", options)


@pytest.mark.parametrize("chunk", [8, 16, 40])
def test_encoder_in_chunks_equals_torchs_whole(exported, chunk):
    packed, folder = exported
    encoder, joiner = session(folder, "encoder"), packed.model.joiner
    features_BNF = torch.randn(3, 80, 16) * 2 - 5
    with torch.inference_mode():
        lengths_B, start_B = torch.full((3,), 80), torch.zeros(3, dtype=torch.long)
        encoded_BTD, _ = packed.model.encode(features_BNF, lengths_B, start_B)
        expected_BTJ = joiner.encoder_projection(encoded_BTD).numpy()
    h = c = np.zeros((NUM_LAYERS, 3, WIDTH), np.float32)
    parts = []
    for start in range(0, 80, chunk):
        x = features_BNF[:, start : start + chunk].numpy()
        encoded, h, c = encoder.run(["encoder_out", "next_h", "next_c"], {"x": x, "h": h, "c": c})
        parts.append(encoded)
    np.testing.assert_allclose(np.concatenate(parts, 1), expected_BTJ, atol=3e-5)
    _, state = packed.model.step(features_BNF, packed.model.initial_state(3))
    np.testing.assert_allclose(h, state.hidden_LBD, atol=3e-5)
    np.testing.assert_allclose(c, state.cell_LBD, atol=3e-5)


def test_decoder_and_joiner_equal_torchs(exported):
    packed, folder = exported
    model = packed.model
    context_B2 = torch.randint(0, 48, (7, 2))
    context_B2[0] = torch.tensor([-1, 0])  # sherpa-onnx's beginning of a sentence: no token, then blank
    encoded_BD = torch.randn(7, WIDTH)
    with torch.inference_mode():
        predicted_BD = model.predict_context(context_B2.clamp_min(0))
        expected_BJ = model.joiner.predictor_projection(predicted_BD).numpy()
        projected_BJ = model.joiner.encoder_projection(encoded_BD).numpy()
        expected_BV = model.join(encoded_BD, predicted_BD).numpy()
    (predicted_BJ,) = session(folder, "decoder").run(["decoder_out"], {"y": context_B2.numpy()})
    np.testing.assert_allclose(predicted_BJ, expected_BJ, atol=1e-5)
    inputs = {"encoder_out": projected_BJ, "decoder_out": predicted_BJ}
    (logits_BV,) = session(folder, "joiner").run(["logit"], inputs)
    np.testing.assert_allclose(logits_BV, expected_BV, atol=1e-5)


def test_metadata_and_tokens_are_what_sherpa_reads(exported, tmp_path):
    packed, folder = exported
    export(packed.model, packed.tokenizer, tmp_path / "new/320", chunk_ms=320)

    def metadata(folder, name):
        return {entry.key: entry.value for entry in onnx.load(folder / f"{name}.onnx").metadata_props}

    expected = {"model_type": "lstm", "num_encoder_layers": "2", "T": "8", "decode_chunk_len": "8"}
    expected |= {"rnn_hidden_size": "24", "d_model": "24", "feature_dim": "16"}
    assert metadata(folder, "encoder") == expected
    longer = expected | {"T": "32", "decode_chunk_len": "32"}
    assert metadata(tmp_path / "new/320", "encoder") == longer
    assert metadata(folder, "decoder") == {"vocab_size": "48", "context_size": "2"}
    lines = (folder / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["<blk> 0", "<unk> 1"] and len(lines) == 48


@pytest.mark.parametrize("chunk_ms", [80, 320])
def test_sherpa_hears_what_we_hear(exported, tmp_path, chunk_ms):
    packed, _ = exported
    export(packed.model, packed.tokenizer, tmp_path, chunk_ms)
    recogniser = sherpa.open_recogniser(tmp_path, 16)
    said = set()
    for seed in range(8):
        samples = sherpa.with_end(speech_like(1.0 + 0.13 * seed, seed), chunk_ms)
        text = transcribe(packed, samples, search=greedy).text
        assert sherpa.hear(recogniser, samples) == sherpa.hear(recogniser, samples, 1000) == text
        said.add(text)
    assert len(said) > 1 and "" not in said


def test_int8_is_smaller_and_still_a_recogniser(exported, tmp_path):
    packed, folder = exported
    sherpa.quantise(folder, tmp_path / "int8")
    operators = {node.op_type for node in onnx.load(tmp_path / "int8/encoder.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in operators and "LSTM" not in operators and "MatMul" not in operators
    samples = sherpa.with_end(speech_like(), 80)
    assert sherpa.hear(sherpa.open_recogniser(tmp_path / "int8", 16), samples) != ""


def run(*arguments):
    """(exit code, stdout, error sentence) of the command, run in this process."""
    result = CliRunner().invoke(cli.app, ["export", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        return 2, result.stdout, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, ""


def test_the_command_writes_the_same_files_again(exported, model_file, tmp_path):
    _, folder = exported
    for _ in range(2):
        code, output, _ = run(tmp_path / "onnx", "--model", model_file)
        assert code == 0 and output.splitlines()[-1] == "feature_dim=16"
        for name in FILES:
            assert (tmp_path / "onnx" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_stages_folder_can_be_exported(tokenizer, tmp_path):
    config = model_config()
    card, tensors = {"model": config}, build_transducer(config).state_dict()
    write_handoff(tmp_path / "student", tensors, card, {}, {}, tmp_path)
    code, _, error = run(tmp_path / "onnx", "--model", tmp_path / "student")
    assert code == 2 and "tokenizer.model" in error and not (tmp_path / "onnx").exists()
    (tmp_path / "prepare").mkdir()
    (tmp_path / "prepare/tokenizer.model").write_bytes(tokenizer._processor.serialized_model_proto())
    assert run(tmp_path / "onnx", "--model", tmp_path / "student")[0] == 0
    for broken, reason in (
        ({}, "no key model"),
        ({"model": model_config(width=16)}, "does not fit card.json"),
    ):
        (tmp_path / "student/card.json").write_text(json.dumps(broken))
        code, _, error = run(tmp_path / "other", "--model", tmp_path / "student")
        assert code == 2 and reason in error and not (tmp_path / "other").exists()


def test_mistakes_are_one_sentence_and_leave_nothing(exported, model_file, tmp_path):
    packed, _ = exported
    full = tmp_path / "full"
    full.mkdir()
    (full / "diary.txt").write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine")
    for folder, *options in (
        (full,),
        (file,),
        (file / "below",),
        (tmp_path / "new", "--chunk-ms", 100),
        (tmp_path / "new", "--chunk-ms", 0),
        (tmp_path / "new", "--model", tmp_path / "absent.sotto"),
        (tmp_path / "new", "--model", file),
    ):
        code, output, error = run(
            folder, *(options if "--model" in options else [*options, "--model", model_file])
        )
        assert code == 2 and output == "" and error and "\n" not in error, folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    assert [path.name for path in full.iterdir()] == ["diary.txt"]
    with pytest.raises(UserError, match="only the LSTM"):
        export(build_transducer(model_config(name="emformer")), packed.tokenizer, tmp_path / "new")
    other = build_transducer(model_config(vocab_size=40))
    with pytest.raises(UserError, match="48 tokens"):
        export(other, packed.tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()
