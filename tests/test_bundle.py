"""The recogniser's file: it comes back as it went in, streams equal recordings, damage is an error."""

import dataclasses
import random

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compression import packed_format, quantizers, row_coding
from pipeline.compression.compressor import Compressor, CompressorConfig
from pipeline.compression.entropy_coding import entropy_bits
from pipeline.corpus.tokenizer import Tokenizer, train_tokenizer
from pipeline.decoding.greedy import greedy
from pipeline.decoding.lexicon import LexiconWeights, lexicon_of
from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig, fbank
from pipeline.language.class_ngram import ClassNgram
from pipeline.models.transducer import build_transducer
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.bundle_model import write_packed
from pipeline.runtime.recognise import transcribe
from pipeline.runtime.recogniser import Recogniser

WORDS = "turn on the light in kitchen play some jazz call anna set a timer for ten minutes what is".split()
FEATURES = FbankConfig(num_mel_bins=16)


def model_config(
    width=24, num_layers=2, joiner_width=20, vocab_size=48, num_mel_bins=16, name="lstm", **encoder
):
    return {
        "encoder": {"name": name, "num_layers": num_layers, "width": width, **encoder},
        "predictor": {"width": joiner_width},
        "joiner_width": joiner_width,
        "vocab_size": vocab_size,
        "num_mel_bins": num_mel_bins,
    }


CONFIG = model_config(channels=(4, 6))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    drawn = random.Random(0)
    return Tokenizer(train_tokenizer([" ".join(drawn.choices(WORDS, k=6)) for _ in range(200)], 48))


def converted(config, levels=15, sparsity=0.5):
    """A random model that speaks (a small blank bias), sparse and quantised."""
    torch.manual_seed(0)
    model = build_transducer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2.0)
    compressor = Compressor(
        model, CompressorConfig(levels=levels, sparsity=sparsity, schedule="one_shot", exclude=("ctc_head.",))
    )
    compressor.set_progress(1.0)
    return compressor.convert(model)


@pytest.fixture(scope="module")
def packed_file(tmp_path_factory, tokenizer):
    path = tmp_path_factory.mktemp("packed") / "model.sotto"
    tensors = converted(CONFIG)
    size_bytes = write_packed(path, CONFIG, tensors, tokenizer, FEATURES, info={"note": "test"})
    assert size_bytes == path.stat().st_size
    return path, tensors


def speech_like(seconds=1.6, seed=0):
    generator = np.random.default_rng(seed)
    time_s = np.arange(int(16_000 * seconds)) / 16_000
    pitch = np.sin(2 * np.pi * 120 * time_s * (1 + 0.3 * np.sin(3 * time_s)))
    return (0.3 * np.sign(pitch) * np.sin(5 * time_s) + 0.01 * generator.normal(size=len(time_s))).astype(
        np.float32
    )


def test_outputs_are_bit_equal_to_the_float_model(packed_file, tokenizer):
    path, tensors = packed_file
    packed = load_packed(path)
    reference = build_transducer(CONFIG)
    reference.load_state_dict({n: t for n, t in tensors.items() if not n.endswith(".scale")})
    reference.eval()
    for name, value in packed.model.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    features_BNF = fbank(torch.from_numpy(speech_like())[None], FEATURES)
    lengths_B, start_B = torch.tensor([features_BNF.shape[1]]), torch.tensor([0])
    with torch.no_grad():
        encoded_BTD, frame_lengths_B = packed.model.encode(features_BNF, lengths_B, start_B)
        assert torch.equal(encoded_BTD, reference.encode(features_BNF, lengths_B, start_B)[0])
        result = greedy(packed.model, encoded_BTD, frame_lengths_B)[0]
        assert result == greedy(reference, encoded_BTD, frame_lengths_B)[0]
    assert len(result.tokens) > 2
    assert packed.tokenizer.hash == tokenizer.hash
    assert packed.fbank_config == FEATURES
    assert packed.header["note"] == "test"
    assert not any(name.startswith("ctc_head") for name in packed.model.state_dict())


def test_loading_draws_no_random_numbers(packed_file):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert load_packed(packed_file[0]).model
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture(scope="module", params=["lstm", "emformer"])
def recogniser(request, tokenizer, tmp_path_factory) -> Recogniser:
    path = tmp_path_factory.mktemp("stream") / "model.sotto"
    config = model_config(name=request.param)
    write_packed(path, config, converted(config), tokenizer, FEATURES)
    return Recogniser(load_packed(path))


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, 25_600), max_size=12))
def test_streams_equal_each_other_and_the_whole_however_samples_are_cut(recogniser, cuts):
    samples = speech_like()
    whole = transcribe(recogniser.packed, samples, search=greedy)
    assert len(whole.tokens) > 2
    state = recogniser.stream()
    borders = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    said = ""
    for start, end in zip(borders[:-1], borders[1:], strict=True):
        state = recogniser.accept(samples[start:end], state)
        assert recogniser.text(state).startswith(said)  # a greedy stream never takes a word back
        said = recogniser.text(state)
    final = recogniser.finish(state)
    once = recogniser.finish(recogniser.accept(samples, recogniser.stream()))
    assert recogniser.result(final) == recogniser.result(once)  # digit for digit
    assert recogniser.text(final) == whole.text
    assert recogniser.result(recogniser.finish(state)) == recogniser.result(final)  # state is not used up


@pytest.mark.parametrize("num_samples", [0, 100, 700, 1300, 1920])
def test_very_short_streams_end_like_whole_recordings(recogniser, num_samples):
    samples = speech_like()[:num_samples]
    final = recogniser.finish(recogniser.accept(samples, recogniser.stream()))
    if num_samples >= 80:
        assert recogniser.text(final) == transcribe(recogniser.packed, samples, search=greedy).text
    assert final.num_frames == (1 if num_samples >= 80 else 0)


@pytest.mark.parametrize("from_s", [0.08, 0.5, 1.3])
def test_a_stream_searched_from_a_moment_on_equals_the_whole(recogniser, from_s):
    """What comes before (a wake word) shapes the encoder's state, and no token comes from it."""
    whole = transcribe(recogniser.packed, speech_like(), from_s, greedy)
    final = recogniser.finish(recogniser.accept(speech_like(), recogniser.stream(from_s)))
    assert recogniser.text(final) == whole.text
    assert all(token.time_s > from_s for token in whole.tokens)
    with pytest.raises(UserError, match="from_s"):
        transcribe(recogniser.packed, speech_like(), 100.0)


def test_any_rate_channels_and_integers_are_heard(recogniser):
    samples = speech_like()
    expected = recogniser.transcribe(samples)
    assert recogniser.transcribe(np.stack([samples, samples], 1)).text == expected.text
    assert recogniser.transcribe(np.round(samples * 32768).astype(np.int16)).text != ""
    at_48k = soxr.resample(samples, 16_000, 48_000)
    assert abs(recogniser.transcribe(at_48k, 48_000).duration_s - expected.duration_s) < 1e-3
    for wrong in (
        (samples[:100], 16_000),
        (samples, 0),
        (samples * np.nan, 16_000),
        (samples[None, None], 16_000),
    ):
        with pytest.raises(UserError):
            recogniser.transcribe(*wrong)


def test_a_damaged_file_is_one_clear_error(packed_file, tmp_path):
    data = packed_file[0].read_bytes()
    drawn = random.Random(0)
    path = tmp_path / "broken.sotto"
    for _ in range(300):
        at = drawn.randrange(len(data))
        broken = drawn.choice(
            [
                data[:at],
                data[:at] + bytes([data[at] ^ 1 << drawn.randrange(8)]) + data[at + 1 :],
                data[:at] + drawn.randbytes(drawn.randrange(1, 9)) + data[at:],
            ]
        )
        path.write_bytes(broken)
        with pytest.raises(UserError, match="broken.sotto: "):
            load_packed(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_packed(tmp_path / "absent.sotto")


@pytest.mark.parametrize(
    "change",
    [
        {"model": {}},
        {"model": {**CONFIG, "joiner_width": 21}},
        {"model": {**CONFIG, "joiner_width": 10**9}},
        {"model": {**CONFIG, "encoder": {"name": "os.system", "num_layers": 1, "width": 8}}},
        {"model": model_config(channels=(4, 6), num_layers=3)},
        {"model": model_config(vocab_size=47)},
        *({"model": model_config(channels=wrong)} for wrong in (None, [4, 7], [4, 10**9], [4] * 9, 4, "46")),
        {"model": "lstm"},
        {"features": {"num_mel_bins": 16, "extra": 1}},
        {"features": {"num_mel_bins": 17}},
        {"features": None},
    ],
)
def test_a_header_that_fits_no_model_is_one_clear_error(packed_file, tmp_path, change):
    contents = packed_format.unpack(packed_file[0].read_bytes(), "x")
    path = tmp_path / "forged.sotto"
    path.write_bytes(packed_format.pack(dataclasses.replace(contents, info={**contents.info, **change})))
    with pytest.raises(UserError, match="forged.sotto: section header"):
        load_packed(path)


def test_a_setting_that_only_torch_knows_is_one_clear_error_of_the_model(packed_file, tmp_path):
    contents = packed_format.unpack(packed_file[0].read_bytes(), "x")
    model = CONFIG
    info = {**contents.info, "model": {**model, "encoder": {**model["encoder"], "dropout": "much"}}}
    path = tmp_path / "forged.sotto"
    path.write_bytes(packed_format.pack(dataclasses.replace(contents, info=info)))
    packed = load_packed(path)
    with pytest.raises(UserError, match="forged.sotto: section header"):
        _ = packed.model


@pytest.mark.parametrize(
    "body", [b"", b"\x30\x00", b"\xff" * 40, b"\x02\x00" + packed_format.compress_text(b"a\nb")]
)
def test_a_tokenizer_that_is_none_is_one_clear_error(packed_file, tmp_path, body):
    contents = packed_format.unpack(packed_file[0].read_bytes(), "x")
    path = tmp_path / "forged.sotto"
    path.write_bytes(packed_format.pack(dataclasses.replace(contents, others={"tokenizer": body})))
    with pytest.raises(UserError, match="forged.sotto: section tokenizer"):
        load_packed(path)


def test_a_lexicon_travels_in_the_file(tmp_path, tokenizer):
    ngram = ClassNgram.fit([["an", "set"], ["set", "light"]] * 3, ["an", "light", "set"], 2, 2)
    path, lexicon = tmp_path / "model.sotto", lexicon_of(ngram, tokenizer, LexiconWeights(0.4, 1.0, 4.0))
    write_packed(path, CONFIG, converted(CONFIG), tokenizer, FEATURES, lexicon=lexicon)
    found = load_packed(path).lexicon
    assert found.words == {"an", "light", "set"} and found.weights == lexicon.weights
    for field in dataclasses.fields(lexicon):
        if isinstance(value := getattr(lexicon, field.name), np.ndarray):
            assert np.array_equal(getattr(found, field.name), value), field.name


@pytest.mark.parametrize("body", [b"", b"\xff" * 40, bytes(100), b"\xff" * 2000])
def test_a_lexicon_that_is_none_is_one_clear_error(packed_file, tmp_path, body):
    contents = packed_format.unpack(packed_file[0].read_bytes(), "x")
    path = tmp_path / "forged.sotto"
    others = {**contents.others, "lexicon": body}
    path.write_bytes(packed_format.pack(dataclasses.replace(contents, others=others)))
    with pytest.raises(UserError, match="forged.sotto: section lexicon"):
        load_packed(path)


def test_only_converted_models_can_be_packed(tmp_path, tokenizer):
    path = tmp_path / "model.sotto"
    with pytest.raises(UserError, match="has no scale"):
        write_packed(path, model_config(), build_transducer(model_config()).state_dict(), tokenizer, FEATURES)
    tensors = converted(model_config())
    name = next(n for n in tensors if n.endswith(".scale") and tensors[n].numel() > 1).removesuffix(".scale")
    tensors[name] = tensors[name] + 0.01
    with pytest.raises(UserError, match=name):
        write_packed(path, model_config(), tensors, tokenizer, FEATURES)
    assert not list(tmp_path.iterdir())


def test_scores_that_are_no_ranks_survive(tmp_path, tokenizer):
    odd = Tokenizer.from_pieces([(piece, score * 0.5) for piece, score in tokenizer.pieces])
    path = tmp_path / "model.sotto"
    write_packed(path, model_config(), converted(model_config()), odd, FEATURES)
    assert load_packed(path).tokenizer.hash == odd.hash != tokenizer.hash


def test_a_student_sized_file_wastes_nothing(tmp_path, tokenizer):
    """Measured: weights and kinds of their rows at or below their entropy, 0.8 kB beside weights, scales and biases."""
    config = model_config(width=128, num_layers=2, joiner_width=128, num_mel_bins=64)
    tensors = converted(config)
    path = tmp_path / "model.sotto"
    size_bytes = write_packed(path, config, tensors, tokenizer, FbankConfig(64))
    sections = packed_format.section_sizes(path.read_bytes(), "x")
    contents = packed_format.unpack(path.read_bytes(), "x")
    matrices = [item.integers for item in contents.coded.values() if item.integers.ndim == 2]
    num_weights = sum(matrix.size for matrix in matrices)
    assert num_weights > 300_000
    entropy_bytes = sum(entropy_bits(matrix) for matrix in matrices) / 8
    coded = packed_format.section_bytes(path.read_bytes(), "x")["weights"]
    by_kind_bytes = row_coding.entropy_bits(coded, matrices) / 8
    assert by_kind_bytes <= sections["weights"] <= 1.005 * entropy_bytes
    assert size_bytes - sections["weights"] - sections["scales"] - sections["vectors"] < 2_000
    assert sections["scales"] < sum(
        len(item.scale_index) for item in contents.coded.values()
    )  # below a byte each
    assert sum(int((matrix == 0).sum()) for matrix in matrices) >= 0.5 * num_weights
    assert all(abs(matrix).max() <= quantizers.max_level(15) for matrix in matrices)
