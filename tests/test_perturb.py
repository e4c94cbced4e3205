"""Perturbed tellings of a batch, against one utterance at a time in plain loops."""

import math

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.features.fbank import FLOOR
from pipeline.features.perturb import PerturbConfig, Told, perturb, wrong_history

CONFIG = PerturbConfig(tempo=0.2, vocal_tract=0.1, channel=0.3, without_wake_word=0.5)
LENGTHS, STARTS = [163, 120, 90, 57, 160, 131], [4, 0, 7, 3, 0, 9]


def batch(num_bins: int = 12) -> Told:
    """A spoken-about time line: bin 0 of frame n is n, and the phone of a quarter frame is its own number."""
    features_BNF = torch.randn(
        len(LENGTHS), max(LENGTHS), num_bins, generator=torch.Generator().manual_seed(3)
    )
    features_BNF[:, :, 0] = torch.arange(max(LENGTHS))
    heard = [length // 8 - start for length, start in zip(LENGTHS, STARTS, strict=True)]
    phones_BM = torch.full((len(LENGTHS), 4 * max(heard)), -1)
    for row, (start, count) in enumerate(zip(STARTS, heard, strict=True)):
        phones_BM[row, : 4 * count] = torch.arange(4 * start, 4 * (start + count))
    return Told(features_BNF, torch.tensor(LENGTHS), torch.tensor(STARTS), phones_BM)


def told_with_frames(config: PerturbConfig, seed: int = 0, tokens: int = 2) -> tuple[Told, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return perturb(batch(), torch.full((len(LENGTHS),), tokens), config, generator)


def told(config: PerturbConfig, seed: int = 0, tokens: int = 2) -> Told:
    return told_with_frames(config, seed, tokens)[0]


def test_nothing_asked_for_changes_nothing():
    for ours, theirs in zip(told(PerturbConfig()), batch(), strict=True):
        lengths_B = batch().feature_lengths_B
        for row, length in enumerate(lengths_B if ours.ndim == 3 else []):
            assert torch.equal(ours[row, :length], theirs[row, :length])
        assert ours.ndim == 3 or torch.equal(ours, theirs)


def test_a_seed_tells_the_same_and_another_seed_something_else():
    assert all(torch.equal(a, b) for a, b in zip(told(CONFIG, 1), told(CONFIG, 1), strict=True))
    assert not torch.equal(told(CONFIG, 1).feature_lengths_B, told(CONFIG, 2).feature_lengths_B)


@pytest.mark.parametrize("seed", range(5))
def test_the_time_line_is_one_for_features_starts_phones_and_frames(seed):
    """Bin 0 tells the old place of every frame: the rest must agree with it."""
    new, frames_BT = told_with_frames(PerturbConfig(tempo=0.2, without_wake_word=0.5), seed)
    for row, (length, start) in enumerate(zip(LENGTHS, STARTS, strict=True)):
        heard = int(new.feature_lengths_B[row])
        place_N = new.features_BNF[row, :heard, 0].numpy()
        offset, tempo = place_N[0], (place_N[-2] - place_N[0]) / (heard - 2)
        assert 0.8 <= tempo + 1e-4 and tempo - 1e-4 <= 1.2 and 0 <= offset < 8 * (start + 1)
        assert np.allclose(place_N, np.minimum(offset + tempo * np.arange(heard), length - 1), atol=2e-3)
        assert abs(heard - (length - offset) / tempo) <= 1.5
        new_start = int(new.start_frames_B[row])
        assert abs(8 * new_start * tempo + offset - max(8 * start, offset)) <= 8 * tempo + 1
        for quarter in range(4 * (heard // 8 - new_start)):
            old = (offset + 2 * (4 * new_start + quarter + 0.5) * tempo) / 2
            expected = int(old) if 4 * start <= int(old) < 4 * (length // 8) else -1
            near_an_edge = abs(old - round(old)) < 1e-2
            assert near_an_edge or int(new.phones_BM[row, quarter]) == expected
        for frame in range(heard // 8 - new_start):
            old = (offset + 8 * (new_start + frame + 0.5) * tempo) / 8
            expected = min(max(int(old) - start, 0), length // 8 - start - 1)
            assert abs(old - round(old)) < 1e-2 or int(frames_BT[row, frame]) == expected
        assert bool((new.features_BNF[row, heard:] == np.float32(math.log(FLOOR))).all())


def test_the_vocal_tract_moves_a_peak_by_its_factor():
    """A bump at 1 kHz is found at 1 kHz divided by a factor between 0.9 and 1.1."""
    mel = 1127 * math.log1p(1000 / 700)
    edges = np.linspace(1127 * math.log1p(20 / 700), 1127 * math.log1p(7600 / 700), 66)[1:-1]
    bump_F = torch.from_numpy(-((edges - mel) ** 2) / 5e4).float()
    features_BNF = bump_F.expand(64, 20, 64).clone()
    old = Told(features_BNF, torch.full((64,), 20), torch.zeros(64, dtype=torch.long), torch.zeros(64, 0))
    new, _ = perturb(old, torch.ones(64), PerturbConfig(vocal_tract=0.1), torch.Generator().manual_seed(0))
    hertz_B = 700 * np.expm1(edges[new.features_BNF[:, 0].argmax(1).numpy()] / 1127)
    assert 850 < hertz_B.min() < 960 and 1040 < hertz_B.max() < 1180


def test_an_utterance_keeps_its_time_line_where_its_tokens_would_not_fit():
    tokens_B = torch.tensor([length // 8 - start for length, start in zip(LENGTHS, STARTS, strict=True)])
    new, _ = perturb(batch(), tokens_B, CONFIG, torch.Generator().manual_seed(1))
    assert bool((new.feature_lengths_B // 8 - new.start_frames_B >= tokens_B).all())


def test_the_wake_word_is_left_out_as_often_as_asked_for():
    new = told(PerturbConfig(without_wake_word=1.0))
    for start, new_start in zip(STARTS, new.start_frames_B.tolist(), strict=True):
        assert new_start <= min(start, 3)


@pytest.mark.parametrize("seed", range(3))
def test_without_tempo_a_teachers_targets_still_fit_the_frames(seed):
    """Frame t after the wake word holds the same samples as before, and there are as many of them."""
    new, frames_BT = told_with_frames(PerturbConfig(channel=0.0, without_wake_word=0.7), seed)
    for row, (length, start) in enumerate(zip(LENGTHS, STARTS, strict=True)):
        new_start = int(new.start_frames_B[row])
        assert int(new.feature_lengths_B[row]) // 8 - new_start == length // 8 - start
        for frame in range(length // 8 - start):
            assert int(new.features_BNF[row, 8 * (new_start + frame), 0]) == 8 * (start + frame)
        phones = 4 * (length // 8 - start)
        assert torch.equal(new.phones_BM[row, :phones], batch().phones_BM[row, :phones])
        assert frames_BT[row, : phones // 4].tolist() == list(range(phones // 4))


@pytest.mark.parametrize(
    "name, value",
    [("tempo", -0.1), ("vocal_tract", 0.9), ("without_wake_word", 1.5), ("wrong_history", -0.5)],
)
def test_impossible_values_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        PerturbConfig(**{name: value})


def test_a_share_of_the_history_is_wrong_and_never_blank():
    tokens_BU = torch.randint(1, 9, (40, 50), generator=torch.Generator().manual_seed(2))

    def told(share, seed=3):
        return wrong_history(tokens_BU, share, 9, torch.Generator().manual_seed(seed))

    assert torch.equal(told(0.0), tokens_BU) and torch.equal(told(0.3), told(0.3))
    assert not torch.equal(told(0.3), told(0.3, 4))
    changed = (told(0.3) != tokens_BU).float().mean()
    assert 0.3 * 7 / 8 - 0.04 < changed < 0.3 * 7 / 8 + 0.04  # one in eight draws the token that was there
    everything = told(1.0)
    assert everything.min() == 1 and everything.max() == 8
