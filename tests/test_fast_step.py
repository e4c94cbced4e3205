"""The compiled engine hears what the reference hears, needs no torch, and refuses what it does not know."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compression import packed_format, quantizers
from pipeline.compression.packed_format import Coded
from pipeline.errors import UserError
from pipeline.features.fbank import fbank
from pipeline.features.frames import num_frames as frames_of
from pipeline.models.convolution_sizes import layer_sizes
from pipeline.runtime import fast_fbank, fast_step, fast_weights
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.bundle_model import write_packed
from pipeline.runtime.fast_convolution import convolve
from pipeline.runtime.fast_recogniser import FastRecogniser
from pipeline.runtime.fast_weights import ConvolutionWeights, load_fast
from pipeline.runtime.kernels import FastKernels, kernels_of
from pipeline.runtime.recogniser import Recogniser
from pipeline.runtime.torch_kernels import TorchKernels
from tests.conftest import ROOT, stage_environment
from tests.reference_convolution import slow_convolution
from tests.test_bundle import FEATURES, converted, model_config, speech_like, tokenizer

__all__ = ["tokenizer"]  # a fixture


@pytest.fixture(scope="module", params=[None, (4, 6)], ids=["plain", "convolutional"])
def model_file(request, tmp_path_factory, tokenizer):
    """Two layers, a first layer narrower than the others, and statistics that are not 0 and 1."""
    path = tmp_path_factory.mktemp("fast") / "model.sotto"
    config = model_config()
    config["encoder"] |= {"input_width": 18, "channels": request.param}
    tensors = converted(config)
    tensors["feature_mean_F"] = torch.linspace(-8.0, -2.0, 16).half().float()
    tensors["feature_scale_F"] = torch.linspace(0.3, 0.6, 16).half().float()
    write_packed(path, config, tensors, tokenizer, FEATURES)
    return path


@pytest.fixture(scope="module")
def engines(model_file):
    return FastRecogniser(load_fast(model_file)), Recogniser(load_packed(model_file))


def cut_and_heard(recogniser, samples, borders, from_s=0.0):
    state = recogniser.stream(from_s)
    for start, end in zip([0, *borders], [*borders, len(samples)], strict=True):
        state = recogniser.accept(samples[start:end], state)
    return recogniser.finish(state)


def test_tokens_times_and_states_are_the_references(engines):
    fast, slow = engines
    for seed in range(5):
        samples = speech_like(1.6, seed)
        borders = list(range(1280, len(samples), 1280))
        for from_s in (0.0, 0.5):
            ours = cut_and_heard(fast, samples, borders, from_s)
            expected = cut_and_heard(slow, samples, borders, from_s)
            assert len(ours.tokens) > 2
            assert (ours.tokens, ours.frames) == (expected.tokens, expected.frames)
            assert ours.num_frames == expected.num_frames and fast.text(ours) == slow.text(expected)
            assert ours.log_prob == pytest.approx(expected.log_prob, rel=1e-4)
            np.testing.assert_allclose(ours.hidden_LD, expected.encoder.hidden_LBD[:, 0], atol=2e-5)
            np.testing.assert_allclose(ours.cell_LD, expected.encoder.cell_LBD[:, 0], atol=5e-5)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 25_600), max_size=12))
def test_streams_are_the_same_digit_for_digit_however_samples_are_cut(engines, cuts):
    fast, samples = engines[0], speech_like()
    once, cut = cut_and_heard(fast, samples, []), cut_and_heard(fast, samples, sorted(cuts))
    assert (cut.tokens, cut.frames, cut.log_prob) == (once.tokens, once.frames, once.log_prob)
    assert np.array_equal(cut.hidden_LD, once.hidden_LD) and np.array_equal(cut.cell_LD, once.cell_LD)


@pytest.mark.parametrize(("num_mel_bins", "channels"), [(5, ()), (4, (3,)), (7, (3, 5, 2)), (5, (2,) * 6)])
def test_convolutions_are_the_references(num_mel_bins, channels):
    generator, sizes = np.random.default_rng(1), layer_sizes(channels)
    frame_NF = generator.normal(size=(8, num_mel_bins)).astype(np.float32)
    expected_TFC, kernels, biases = frame_NF[..., None], [np.zeros(0)], [np.zeros(0)]
    for num_in, num_out, *stride in sizes:
        integers_OK = generator.integers(-7, 8, (num_out, 9 * num_in))
        biases.append(generator.normal(size=num_out))
        kernels.append(fast_weights._kernel(Coded(integers_OK, np.full(num_out, -16))))  # steps of 1 / 4
        expected_TFC = slow_convolution(expected_TFC, integers_OK / 4, biases[-1], tuple(stride))
    arrays = [np.concatenate(parts).astype(np.float32) for parts in (kernels, biases)]
    weights = ConvolutionWeights(*arrays, np.array(sizes, np.int64).reshape(-1, 4))
    np.testing.assert_allclose(convolve(frame_NF, weights), expected_TFC.ravel(), rtol=1e-5, atol=1e-4)


def test_streams_that_are_encoded_together_are_the_references(model_file):
    packed = load_packed(model_file)
    fast, slow = kernels_of(packed), TorchKernels(packed)
    assert isinstance(fast, FastKernels)
    ours, expected = [fast.encoder_state()] * 3, [slow.encoder_state()] * 3
    for features_BNF in np.random.default_rng(0).normal(-5, 2, (4, 3, 8, 16)).astype(np.float32):
        our_frames, ours = fast.encode(features_BNF, ours)
        expected_frames, expected = slow.encode(features_BNF, expected)
        np.testing.assert_allclose(our_frames, expected_frames, atol=3e-5)


def test_a_state_may_be_gone_on_from_twice(engines):
    fast, samples = engines[0], speech_like()
    state = fast.accept(samples[:9000], fast.stream())
    first = fast.finish(fast.accept(samples[9000:], state))
    again = fast.finish(fast.accept(samples[9000:], state))
    assert (first.tokens, first.log_prob) == (again.tokens, again.log_prob)


@pytest.mark.parametrize("num_samples", [0, 79, 80, 100, 279, 280, 700, 1300, 1920])
def test_very_short_streams_end_like_the_references(engines, num_samples):
    fast, slow = engines
    samples = speech_like()[:num_samples]
    ours, expected = cut_and_heard(fast, samples, []), cut_and_heard(slow, samples, [])
    assert (ours.tokens, ours.num_frames) == (expected.tokens, expected.num_frames)


@pytest.mark.parametrize("num_mel_bins", [16, 64, 80])
def test_features_are_the_references(num_mel_bins):
    samples = speech_like(0.7, seed=3)
    expected = fbank(
        torch.from_numpy(samples)[None], dataclasses.replace(FEATURES, num_mel_bins=num_mel_bins)
    )[0]
    padded = fast_fbank.mirror(samples, fast_fbank.LEFT_EDGE, 400)
    ours = fast_fbank.log_mel(padded, frames_of(len(samples)), num_mel_bins)
    # Quiet bins are differences of large numbers: their logarithms agree to fewer digits.
    np.testing.assert_allclose(ours[:-2], expected[:-2], atol=2e-3)
    assert np.abs(ours[:-2] - expected[:-2].numpy()).mean() < 2e-5
    assert np.all(fast_fbank.log_mel(np.zeros(400, np.float32), 1, num_mel_bins) == np.log(fast_fbank.FLOOR))


@given(st.lists(st.floats(-200, 80, width=32, allow_subnormal=False), min_size=1, max_size=70))
def test_exponentials_and_their_sums_are_within_float_rounding(numbers):
    x = np.array(numbers, np.float32)
    exact = np.exp(x.astype(np.float64))
    two_sums = np.log(exact.sum()) + np.array([0, 1])
    assert fast_step.log_sum_exp(np.stack([x, x + 1])) == pytest.approx(two_sums, rel=3e-7, abs=3e-6)


def test_tanh_is_one_within_float_rounding():
    x = np.linspace(-20, 20, 10_001).astype(np.float32)
    assert np.abs(fast_step.tanh(x) - np.tanh(x.astype(np.float64))).max() < 3e-7


def test_the_grid_of_steps_is_the_quantizers():
    index = np.arange(quantizers.LOWEST_INDEX, quantizers.HIGHEST_INDEX + 1)
    steps = fast_weights._steps(Coded(np.zeros(0, np.int32), index))
    assert np.array_equal(steps, quantizers.step_of_index(torch.from_numpy(index)).numpy())


def test_the_engine_needs_no_torch(model_file):
    code = (
        "import sys, numpy, pipeline.runtime.fast_recogniser as fast; "
        "from pipeline.runtime.fast_weights import load_fast; "
        "recogniser = fast.FastRecogniser(load_fast(sys.argv[1])); "
        "recogniser.finish(recogniser.accept(numpy.zeros(16000, numpy.float32), recogniser.stream())); "
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(model_file)]
    assert subprocess.run(command, cwd=ROOT, env=stage_environment()).returncode == 0


def test_damaged_and_foreign_files_are_one_clear_error(model_file, tokenizer, tmp_path):
    data = model_file.read_bytes()
    path = tmp_path / "broken.sotto"
    contents = packed_format.unpack(data, "x")
    model, features = contents.info["model"], contents.info["features"]
    forged = [
        dataclasses.replace(contents, info={"model": model | change, "features": features})
        for change in (
            {"joiner_width": 21},
            {"joiner_width": "x"},
            {"num_mel_bins": None},
            {"vocab_size": 10**9},
        )
    ]
    forged += [
        dataclasses.replace(contents, info={}),
        dataclasses.replace(contents, info={"model": model, "features": None}),
        dataclasses.replace(contents, others={}),
        dataclasses.replace(contents, others={"tokenizer": b"\x30\x00"}),
    ]
    for body in (b"", data[:100], data[:-1] + b"x", *(packed_format.pack(content) for content in forged)):
        path.write_bytes(body)
        with pytest.raises(UserError, match="broken.sotto: "):
            load_fast(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_fast(tmp_path / "absent.sotto")
    emformer = model_config(name="emformer")
    write_packed(path, emformer, converted(emformer), tokenizer, FEATURES)
    with pytest.raises(UserError, match="emformer"):
        load_fast(path)
