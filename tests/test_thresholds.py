"""What the end-pointer's numbers mean, and which thresholds are chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.endpointer import TICK_MS, EndpointConfig
from pipeline.errors import UserError
from pipeline.evaluation import endpointing, thresholds
from pipeline.evaluation.endpointing import Outcome
from pipeline.evaluation.thresholds import Track


def ramp(end_frame, rise, num_frames=60, start=1, bump=None):
    """Words until `end_frame`, then a score that rises by `rise` a frame; `bump`: (frame, score) amid speech."""
    t_T = np.arange(num_frames)
    score_T = np.clip((t_T - end_frame) * rise, 0.0, 0.99)
    if bump:
        score_T[bump[0]] = bump[1]
    changed_T = (t_T >= start) & (t_T <= end_frame)
    return Track(score_T, changed_T, (end_frame + 1.0) * TICK_MS)


def test_measures_on_hand_made_outcomes():
    outcomes = [
        Outcome(1000, 1400, (1200.0,), 1200.0, True),
        Outcome(1000, 1600, (1100.0, 1300.0), 1300.0, False),
        Outcome(1000, 950, (), None, None),  # an early cut, within 100 ms
        Outcome(1000, 500, (400.0,), 400.0, True),  # an early cut
        Outcome(1000, None, (1100.0,), None, None),  # never ended
    ]
    assert endpointing.latency_percentiles(outcomes) == pytest.approx(
        {"ep50_ms": 500, "ep90_ms": 580, "ep99_ms": 598}
    )
    assert endpointing.early_cut_rate(outcomes) == 2 / 5
    assert endpointing.early_cut_rate(outcomes, 100) == 1 / 5
    assert endpointing.gaps_ms(outcomes).tolist() == [200, 300, 100]
    assert endpointing.revision_rate(outcomes) == pytest.approx(1 / 3)
    assert endpointing.measured_saving_ms(outcomes, 250) == pytest.approx((200 + 250 + 0 + 100) / 4)
    assert endpointing.net_saving_ms(0.1, 200, 150) == pytest.approx(135)
    assert endpointing.net_saving_ms(0.1, 200, 900) == pytest.approx(180)
    assert endpointing.latency_percentiles([]) == {} and endpointing.early_cut_rate([]) == 0


def measured(tracks, config):
    return endpointing.measures([thresholds.run(track, config) for track in tracks], downstream_ms=250)


def test_measures_on_hand_made_tracks():
    """Scores 0.1, 0.2 … after the end: 0.5 comes 200 ms and 0.9 comes 360 ms late; one track is cut by a bump."""
    tracks = [ramp(10 + k, 0.1001) for k in range(9)] + [ramp(20, 0.1001, bump=(5, 0.95))]
    config = EndpointConfig(0.5, 0.9, max_silence_ms=4_000)
    expected = {
        "ep50_ms": 360, "ep90_ms": 360, "ep99_ms": 360, "early_cut": 0.1, "early_cut_100ms": 0.1,
        "no_fire": 0, "speculations": 0.9, "adopted": 0.9, "revision_rate": 0,
        "gap_ms": 160, "gap_ms/q25": 160, "gap_ms/q75": 160, "gap_grouped_ms": 160, "gap_mean_ms": 160,
        "saving_ms": 160, "saving_measured_ms": 144, "start50_ms": 200,
    }  # fmt: skip
    assert measured(tracks, config) == pytest.approx(expected)
    assert not {"ep50_ms", "gap_ms", "start50_ms"} & set(measured([ramp(40, 0.0)], config))


def test_a_second_threshold_is_as_fast_and_cuts_fewer():
    """Pauses amid speech that reach 0.6: a single end-pointer at the speculative speed would cut at all of them."""
    paused = [ramp(20 + k, 0.1001, bump=(9, 0.6)) for k in range(5)]
    tracks = [ramp(10 + k, 0.1001) for k in range(5)] + paused
    config = EndpointConfig(0.5, 0.9, max_silence_ms=4_000)
    found = measured(tracks, config)
    assert found["early_cut"] == 0
    assert thresholds.single_early_cut_rate(tracks, found["start50_ms"], config) == 0.5
    assert found["revision_rate"] == 0.5 and found["speculations"] == 1.5


def test_the_grouped_median_moves_with_every_utterance():
    """A plain median of ticks says 160 for all of these."""
    found = [
        endpointing.grouped_median_ms([120.0] * (9 - late) + [160.0] * 12 + [200.0] * late)
        for late in range(9)
    ]
    assert np.median([120.0] * 9 + [160.0] * 12) == np.median([120.0] + [160.0] * 12 + [200.0] * 8) == 160
    assert found == sorted(found) and 140 < found[0] < 150 and 170 < found[-1] < 180
    assert (
        endpointing.grouped_median_ms([160.0, 200.0]) == 180
        and endpointing.grouped_median_ms([160.0] * 3) == 160
    )


def drawn_tracks(seed, num=60):
    drawn = np.random.default_rng(seed)
    tracks = []
    for _ in range(num):
        end = int(drawn.integers(8, 30))
        bump = (int(drawn.integers(2, end + 1)), float(drawn.beta(2, 2)))  # also as the speech just ends
        track = ramp(end, float(drawn.uniform(0.03, 0.3)), bump=bump)
        noise_T = drawn.normal(0, 0.02, len(track.score_T))
        changed_T = track.changed_T & (drawn.random(len(track.score_T)) < 0.4)
        end_ms = track.speech_end_ms - drawn.choice([0, 0, 1, 20])
        tracks.append(Track(np.clip(track.score_T + noise_T, 0, 1), changed_T, end_ms))
    return tracks


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0]))
def test_the_final_threshold_is_the_lowest_that_keeps_its_constraint(seed, max_early_cut):
    tracks = drawn_tracks(seed)
    config = EndpointConfig(max_silence_ms=4_000)
    chosen = thresholds.choose_final(tracks, max_early_cut, config)

    def cuts(threshold):
        both = thresholds.with_thresholds(config, threshold, threshold)
        return endpointing.early_cut_rate([thresholds.run(track, both) for track in tracks])

    assert cuts(chosen) <= max_early_cut
    if chosen > thresholds.RESOLUTION:
        assert cuts(chosen - thresholds.RESOLUTION) > max_early_cut


def test_the_speculative_threshold_comes_nearest_to_its_gap():
    tracks, config = drawn_tracks(3), EndpointConfig(max_silence_ms=4_000)
    final = thresholds.choose_final(tracks, 0.02, config)
    chosen = thresholds.choose_speculative(tracks, final, 200, config)
    assert chosen < final

    def miss_ms(threshold):
        both = thresholds.with_thresholds(config, threshold, final)
        gaps = endpointing.gaps_ms([thresholds.run(track, both) for track in tracks])
        return abs(endpointing.grouped_median_ms(gaps.tolist()) - 200) if len(gaps) else np.inf

    assert miss_ms(chosen) <= 10
    assert miss_ms(chosen) <= min(miss_ms(t) for t in np.linspace(0.05, final, 12, endpoint=False))


def test_of_two_thresholds_equally_far_from_the_gap_the_surer_is_taken():
    """Scores 0.1, 0.2 … a tick: 0.6 comes 120 ms before 0.9, 0.7 comes 80 ms before."""
    tracks = [ramp(10 + k, 0.1001) for k in range(5)]
    assert thresholds.choose_speculative(tracks, 0.9, 100) == pytest.approx(0.7007, abs=1e-5)


def test_the_final_waits_until_its_speculation_is_right_often_enough():
    """Eight of 21 tracks have one more word 160 ms after their speech: a speculation before it is wrong. Four have a
    pause that looks like an end, of which one, two, three may be cut.
    """
    config, tracks = EndpointConfig(max_silence_ms=4_000), []
    for k in range(21):
        track = ramp(20 + 2 * (k % 5), 0.0501, bump=(8, 0.3 + 0.1 * k) if k < 4 else None)
        changed_T = np.zeros(60, bool)
        changed_T[[1, int(track.speech_end_ms / TICK_MS) + 3] if k > 12 else [1]] = True
        tracks.append(Track(track.score_T, changed_T, track.speech_end_ms))
    found = []
    for most in (1.0, 0.3, -1.0):
        chosen = thresholds.choose(tracks, 0.15, 200, most, 0, config)
        held = [thresholds.held_back(track, chosen.final_threshold, 0) for track in tracks]
        outcomes = [thresholds.run(track, chosen) for track in held]
        revised = [outcome.first_was_right for outcome in outcomes].count(False)
        found.append((round(chosen.final_threshold, 3), revised, 21 * endpointing.early_cut_rate(outcomes)))
    assert found == [(0.3, 8, pytest.approx(3)), (0.5, 0, pytest.approx(1)), (0.5, 0, pytest.approx(1))]


def test_choices_that_cannot_be_made_are_clear_errors():
    with pytest.raises(UserError, match="max_early_cut"):
        thresholds.choose_final([ramp(10, 0.1, bump=(5, 1.0))], 0.02)
    with pytest.raises(UserError, match="max_early_cut"):  # a pause longer than the silence that ends a turn
        pause = ramp(70, 0.1, num_frames=90)
        thresholds.choose_final([Track(pause.score_T, np.arange(90) == 2, pause.speech_end_ms)], 0.02)
    with pytest.raises(UserError, match="tracks"):
        thresholds.choose_final([])
    with pytest.raises(UserError, match="final"):
        thresholds.choose_speculative([ramp(10, 0.0)], 0.9)
    with pytest.raises(ValueError, match="score_T"):
        Track(np.zeros(3), np.zeros(4, bool), 10.0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([240.0, 1600.0]), st.sampled_from([None, 160.0]))
def test_all_thresholds_at_once_equal_the_state_machine(seed, max_silence_ms, max_wait_ms):
    config = EndpointConfig(max_silence_ms=max_silence_ms, max_wait_ms=max_wait_ms)
    threshold_C = np.linspace(0.05, 1.0, 9)
    for track in drawn_tracks(seed, 6):
        slow = [thresholds.run(track, thresholds.with_thresholds(config, t, t)).final_ms for t in threshold_C]
        fast = thresholds._fire_ms(track, threshold_C, config)
        assert [np.inf if ms is None else ms for ms in slow] == fast.tolist()
