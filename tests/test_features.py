"""Features: Kaldi's numbers, the same in chunks as whole; masks that hide what they should and nothing else."""

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.features.augment import SpecAugmentConfig, spec_augment
from pipeline.features.fbank import FbankConfig, fbank, flush, initial_state, step
from pipeline.features.frames import num_frames
from tests.reference_features import slow_fbank

CONFIG = FbankConfig(num_mel_bins=64)


def noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    """Speech-like level: noise with a slow swell and a DC offset."""
    samples_S = torch.randn(num_samples, generator=torch.Generator().manual_seed(seed)) * 0.1
    return samples_S * torch.linspace(0.01, 1.0, num_samples) + 0.02


def kaldi(samples_S: torch.Tensor, num_mel_bins: int) -> torch.Tensor:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = 16000, 0.0
    options.frame_opts.snip_edges, options.frame_opts.window_type = False, "povey"
    options.mel_opts.num_bins, options.mel_opts.low_freq, options.mel_opts.high_freq = num_mel_bins, 20, -400
    online = knf.OnlineFbank(options)
    online.accept_waveform(16000, samples_S.tolist())
    online.input_finished()
    frames = [online.get_frame(n) for n in range(online.num_frames_ready)]
    return torch.from_numpy(np.array(frames)).reshape(-1, num_mel_bins)


@pytest.mark.parametrize("num_samples", [81, 160, 279, 280, 400, 1000, 16079, 16080, 40000])
@pytest.mark.parametrize("num_mel_bins", [64, 80])
def test_fbank_equals_kaldi_native_fbank(num_samples, num_mel_bins):
    samples_S = noise(num_samples)
    ours_NF = fbank(samples_S[None], FbankConfig(num_mel_bins))[0]
    theirs_NF = kaldi(samples_S, num_mel_bins)
    assert ours_NF.shape == theirs_NF.shape == (num_frames(num_samples), num_mel_bins)
    assert (ours_NF - theirs_NF).abs().max() < 1e-3


def test_fbank_equals_torchaudio():
    samples_S = noise(30000, seed=1)
    theirs_NF = torchaudio.compliance.kaldi.fbank(
        samples_S[None], num_mel_bins=64, snip_edges=False, low_freq=20.0, high_freq=-400.0
    )
    assert (fbank(samples_S[None], CONFIG)[0] - theirs_NF).abs().max() < 1e-3


@pytest.mark.parametrize("num_samples", [60, 100, 700, 1234])
def test_fbank_equals_the_loop(num_samples):
    samples_S = noise(num_samples, seed=2)
    expected_NF = slow_fbank(samples_S.numpy(), 64)
    assert fbank(samples_S[None], CONFIG)[0].shape == expected_NF.shape
    assert np.abs(fbank(samples_S[None], CONFIG)[0].numpy() - expected_NF).max(initial=0.0) < 1e-3


def test_digital_silence_is_the_floor():
    assert torch.allclose(fbank(torch.zeros(1, 8000), CONFIG), torch.tensor(2.0**-23).log())


def test_batch_rows_equal_single_utterances():
    samples_BS = torch.stack([noise(5000, seed) for seed in range(3)])
    for row, samples_S in enumerate(samples_BS):
        assert torch.equal(fbank(samples_BS, CONFIG)[row], fbank(samples_S[None], CONFIG)[0])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 700), st.integers(0, 9000)), max_size=12),
    seed=st.integers(0, 1000),
)
def test_chunked_equals_whole_exactly(sizes, seed):
    samples_S = noise(sum(sizes), seed)
    state, chunks = initial_state(CONFIG), []
    for chunk_S in samples_S.split(sizes):
        features_NF, state = step(chunk_S, state, CONFIG)
        chunks.append(features_NF)
    chunks.append(flush(state, CONFIG))
    assert torch.equal(torch.cat(chunks), fbank(samples_S[None], CONFIG)[0])


def test_a_frame_comes_as_soon_as_its_samples_are_there():
    state = initial_state(CONFIG)
    none_NF, state = step(noise(279), state, CONFIG)
    first_NF, state = step(noise(1), state, CONFIG)
    assert (len(none_NF), len(first_NF)) == (0, 1)
    assert state.pending_S.numel() < 400  # memory does not grow with the stream


def test_step_leaves_the_given_state_untouched():
    _, state = step(noise(900), initial_state(CONFIG), CONFIG)
    first_NF, _ = step(noise(500, seed=1), state, CONFIG)
    again_NF, _ = step(noise(500, seed=1), state, CONFIG)
    assert torch.equal(first_NF, again_NF)


AUGMENT = SpecAugmentConfig(
    num_frequency_masks=2, max_frequency_bins=10, num_time_masks=2, max_time_frames=40, max_time_share=0.2
)


def augmented(seed: int, config: SpecAugmentConfig = AUGMENT):
    features_BNF = torch.randn(4, 200, 64, generator=torch.Generator().manual_seed(9))
    lengths_B = torch.tensor([200, 150, 50, 1])
    masked_BNF = spec_augment(features_BNF, lengths_B, config, torch.Generator().manual_seed(seed))
    return features_BNF, lengths_B, masked_BNF


def test_spec_augment_repeats_with_its_seed_only():
    assert torch.equal(augmented(1)[2], augmented(1)[2])
    assert not torch.equal(augmented(1)[2], augmented(2)[2])


@pytest.mark.parametrize("seed", range(8))
def test_spec_augment_hides_spans_behind_the_mean(seed):
    features_BNF, lengths_B, masked_BNF = augmented(seed)
    changed_BNF = features_BNF != masked_BNF
    for row, length in enumerate(lengths_B.tolist()):
        assert not changed_BNF[row, length:].any(), "padding must stay"
        mean_F = features_BNF[row, :length].mean(0)
        hidden_NF = changed_BNF[row, :length]
        expected_NF = torch.where(hidden_NF, mean_F, features_BNF[row, :length])
        assert torch.allclose(masked_BNF[row, :length], expected_NF, atol=1e-6)
        if length > 1:
            whole_frames, whole_bins = hidden_NF.all(1), hidden_NF.all(0)
            assert torch.equal(hidden_NF, whole_frames[:, None] | whole_bins[None, :])
            assert whole_frames.sum() <= 2 * min(40, 0.2 * length) and whole_bins.sum() <= 20


def test_spec_augment_draws_for_each_utterance():
    features_BNF = torch.randn(8, 100, 64, generator=torch.Generator().manual_seed(3))
    features_BNF = features_BNF[:1].expand(8, -1, -1)
    masked_BNF = spec_augment(features_BNF, torch.full((8,), 100), AUGMENT, torch.Generator().manual_seed(0))
    assert len({row.numpy().tobytes() for row in masked_BNF}) == 8


def test_spec_augment_can_be_switched_off():
    off = SpecAugmentConfig(num_frequency_masks=0, num_time_masks=0)
    features_BNF, _, masked_BNF = augmented(5, off)
    assert torch.equal(features_BNF, masked_BNF)


def test_spec_augment_masks_hide_a_fair_share():
    features_BNF = torch.randn(400, 100, 64, generator=torch.Generator().manual_seed(4))
    masked_BNF = spec_augment(
        features_BNF, torch.full((400,), 100), AUGMENT, torch.Generator().manual_seed(0)
    )
    share = (features_BNF != masked_BNF).float().mean().item()
    # Two bands of 0-10 of 64 bins and two spans of 0-20 of 100 frames, overlaps apart: a mean of 0.3
    assert 0.22 < share < 0.34


@pytest.mark.parametrize("field, value", [("num_time_masks", -1), ("max_time_share", 1.5)])
def test_spec_augment_refuses_impossible_values(field, value):
    with pytest.raises(UserError, match=field):
        SpecAugmentConfig(**{field: value})
