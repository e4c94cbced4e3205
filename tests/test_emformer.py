"""The Emformer encoder: chunked equals whole for every chunk length, batched equals alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features.frames import FEATURES_PER_FRAME
from pipeline.models.emformer_encoder import EmformerConfig, EmformerEncoder

MEL_BINS = 4
CONFIGS = {
    "look-ahead": {"segment_frames": 3, "left_context_frames": 5, "right_context_frames": 1},
    "memory": {"segment_frames": 2, "left_context_frames": 2, "right_context_frames": 2, "memory_size": 2},
    "causal": {"segment_frames": 1, "left_context_frames": 4, "right_context_frames": 0},
    "long look-ahead": {
        "segment_frames": 2,
        "left_context_frames": 3,
        "right_context_frames": 5,
        "memory_size": 1,
    },
}


def encoder(name: str = "look-ahead") -> EmformerEncoder:
    torch.manual_seed(0)
    config = EmformerConfig(num_layers=2, width=8, num_heads=2, feed_forward_width=16, **CONFIGS[name])
    return EmformerEncoder(MEL_BINS, config).eval()


def features(batch: int, num_features: int) -> torch.Tensor:
    return torch.randn(batch, num_features, MEL_BINS, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def streamed(model: EmformerEncoder, features_BNF: torch.Tensor, chunks: list[int]) -> torch.Tensor:
    state, parts = model.initial_state(len(features_BNF)), []
    for chunk_BNF in features_BNF.split(chunks, 1):
        encoded_BTD, state = model.step(chunk_BNF, state)
        parts.append(encoded_BTD)
    return torch.cat([*parts, model.flush(state)], 1)


@torch.no_grad()
def whole(model: EmformerEncoder, features_BNF: torch.Tensor) -> torch.Tensor:
    return model(features_BNF, torch.full((len(features_BNF),), features_BNF.shape[1]))[0]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 9, 16, 24, 25, 40, 107])
def test_chunked_equals_whole_for_every_chunk_length(name, chunk):
    model, x_BNF = encoder(name), features(2, 107)
    chunks = [chunk] * (107 // chunk) + [107 % chunk] * (107 % chunk > 0)
    expected = whole(model, x_BNF)
    assert expected.shape == (2, 107 // FEATURES_PER_FRAME, 8)
    torch.testing.assert_close(streamed(model, x_BNF, chunks), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), st.lists(st.integers(0, 45), min_size=1, max_size=8))
def test_chunked_equals_whole_for_mixed_chunks_and_every_length(name, chunks):
    model, x_BNF = encoder(name), features(1, max(sum(chunks), 1))
    chunks = chunks if sum(chunks) else [1]
    torch.testing.assert_close(streamed(model, x_BNF, chunks), whole(model, x_BNF), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_utterance_is_the_same_alone_and_in_a_batch_with_garbage_as_padding(name):
    model, x_BNF, lengths = encoder(name), features(5, 100), torch.tensor([100, 61, 8, 7, 47])
    x_BNF[torch.arange(100) >= lengths[:, None]] = torch.nan
    with torch.no_grad():
        encoded_BTD, frame_lengths_B = model(x_BNF, lengths)
    assert frame_lengths_B.tolist() == [12, 7, 1, 0, 5]
    for b, num_frames in enumerate(frame_lengths_B.tolist()):
        alone = whole(model, x_BNF[b : b + 1, : lengths[b]])
        torch.testing.assert_close(encoded_BTD[b : b + 1, :num_frames], alone, rtol=1e-5, atol=1e-5)


def test_whole_equals_torchaudio_infer_on_full_segments():
    model, x_BNF = encoder("memory"), features(2, 6 * 2 * FEATURES_PER_FRAME)
    segment, right = model.config.segment_frames, model.config.right_context_frames
    with torch.no_grad():
        frames = torch.nn.functional.pad(model._project(x_BNF), (0, 0, 0, right))
        state, parts = None, []
        for start in range(0, frames.shape[1] - right, segment):
            block = frames[:, start : start + segment + right]
            out, _, state = model.emformer.infer(block, torch.full((2,), segment + right), state)
            parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole(model, x_BNF), rtol=1e-5, atol=1e-5)


def test_step_leaves_its_state_alone_so_that_a_stream_can_be_forked():
    model = encoder("memory")
    with torch.no_grad():
        _, state = model.step(features(1, 64), model.initial_state(1))
        first, _ = model.step(features(1, 40), state)
        model.step(-features(1, 40), state)
        model.flush(state)
        again, _ = model.step(features(1, 40), state)
    assert first.shape[1] > 0 and torch.equal(first, again)


def test_look_ahead_is_as_long_as_configured():
    """A change in the features changes no frame that left before it arrived."""
    model, x_BNF = encoder("look-ahead"), features(1, 20 * FEATURES_PER_FRAME)
    changed = x_BNF.clone()
    changed[:, 10 * FEATURES_PER_FRAME :] += 1.0
    same = (whole(model, x_BNF) == whole(model, changed)).all(-1)[0]
    # Frames 0-8 are three segments, whose look-ahead ends with frame 9.
    assert same[:9].all() and not same[9:].any()


def test_gradients_reach_every_weight():
    model = encoder("memory").train()
    encoded_BTD, _ = model(features(3, 80), torch.tensor([80, 40, 60]))
    encoded_BTD.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
