"""What the stage `stream` measures with: silence behind recordings, tracks, outcomes, bias lists, and its training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.greedy import greedy
from pipeline.decoding.search import BeamConfig
from pipeline.evaluation import bias_lists, bias_metrics, name_kinds, streams, thresholds
from pipeline.evaluation.endpoint_metrics import endpoint_metrics
from pipeline.evaluation.endpointing import Outcome
from pipeline.evaluation.thresholds import Track
from pipeline.features.fbank import fbank
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine
from pipeline.runtime.events import FinalEnd, Partial, Revise, SpeculativeEnd
from pipeline.runtime.phrases import PhraseBonus
from pipeline.training.endpointer import Example, blank_posteriors, endpoint_loss, train_endpointer
from tests.tiny_model import noise, tiny_packed


def test_silence_is_the_background_after_the_speech_or_the_quietest_place():
    loudness_N = np.array([9.0] * 30 + [1.0] * 30)
    assert streams.background(loudness_N, 30) == (45, 60)
    assert streams.background(loudness_N[:35], 35) == (25, 35)
    assert streams.background(np.r_[loudness_N[:30], [1.0] * 10, loudness_N[:30]], 70) == (30, 40)
    assert streams.background(np.ones(4), 4) == (0, 4)
    rows = np.arange(5)[:, None]
    assert streams.continued(rows, 3, 5, 6)[:, 0].tolist() == [0, 1, 2, 3, 4, 4, 3, 3, 4, 4, 3]
    samples_S = np.concatenate([noise(0.5), 1e-3 * noise(0.5)])
    longer_S = streams.with_silence(samples_S, 0.5, 1.0)
    assert len(longer_S) == 32_000 and np.abs(longer_S[16_000:]).max() <= np.abs(samples_S[12_000:]).max()


def test_spread_takes_evenly_and_never_twice():
    assert streams.spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert streams.spread([1, 2], 5) == [1, 2] and streams.spread(list(range(7)), 7) == list(range(7))


def test_a_track_as_the_engine_speculates():
    """Ends of frames, 80 ms apart, with their middles between: words at 80 and 400 ms; 160 ms without any settle."""
    changed_T = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], bool)
    at_ends, between = [0.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.5, 0.9], [0, 0, 0, 0.6, 0.9, 0, 0, 0.9]
    score_T = np.zeros(17)
    score_T[::2], score_T[1::2] = at_ends, between
    track = Track(score_T, changed_T, 500.0)
    held = thresholds.held_back(track, 0.8, 160)
    assert held.score_T[::2].tolist() == [0.3, 0, 0, 0.5, 0.5, 0, 0.9, 0.5, 0.9]
    assert held.score_T[1::2].tolist() == [
        0,
        0,
        0,
        0.6,
        *[pytest.approx(0.8, abs=1e-5)],
        0,
        0,
        pytest.approx(0.8, abs=1e-5),
    ]
    assert (held.score_T[1::2] < 0.8).all()
    assert thresholds.at_frames(track).score_T[::2].tolist() == at_ends
    assert not thresholds.at_frames(track).score_T[1::2].any()


def test_outcomes_are_read_off_the_first_turns_events():
    events = [
        Partial(1, 0, 80, "a"), SpeculativeEnd(1, 1, 160, "a"), Revise(1, 2, 240, "a b"),
        SpeculativeEnd(1, 3, 320, "a b"), FinalEnd(1, 3, 480, "a b"), SpeculativeEnd(2, 1, 560, "c"),
    ]  # fmt: skip
    assert streams.outcome(events, 300.0) == Outcome(300.0, 480.0, (160.0, 320.0), 320.0, False)
    assert streams.outcome(events[:3], 300.0) == Outcome(300.0, None, (160.0,), None, None)
    revised = [*events[:3], FinalEnd(1, 3, 480, "a b")]
    assert streams.outcome(revised, 300.0) == Outcome(300.0, 480.0, (160.0,), None, False)
    assert streams.outcome([FinalEnd(1, 1, 480, "a")], 300.0) == Outcome(300.0, 480.0, (), None, None)
    assert streams.words_of([*events, FinalEnd(2, 1, 640, "c")]) == "a b c"


def test_endpoint_metrics_of_an_engine(tmp_path):
    """Silence alone decides, 0.8 s of it: speech that ends after half a second cannot be cut, later speech can."""
    engine = Engine(tiny_packed(tmp_path), endpointer=RULE)
    recordings = [np.concatenate([noise(2, seed), np.zeros(40_000, np.float32)]) for seed in range(4)]

    def measured(end_s):
        cuts = [SimpleNamespace(supervisions=[SimpleNamespace(custom={"speech_end_s": end_s})])] * 4
        return endpoint_metrics(engine, recordings, cuts, downstream_ms=250)

    early, late = measured(0.5), measured(2.0)
    assert early["endpoint/early_cut"] == 0 <= early["endpoint/single_early_cut"] <= 1
    assert late["endpoint/early_cut"] > 0 and early["endpoint/start50_ms"] < early["endpoint/ep50_ms"]


def test_bias_lists_hold_the_own_phrases_and_nothing_else_that_was_said():
    rng = np.random.default_rng(0)
    own = bias_lists.own_phrases({"names": ["Anna Smith"], "rare_words": ["cello", "cello"]})
    assert own == ("anna smith", "cello") and bias_lists.own_phrases({}) == ()
    pool = bias_lists.distractor_pool([own, ("bob",), ("living room",)], ["play play the cello", "the lamp"])
    assert pool == ["anna smith", "bob", "cello", "living room", "lamp", "play", "the"]
    reference = "play the cello for anna smith"
    chosen = bias_lists.bias_list(reference, own, 4, pool, rng)
    assert chosen.given[:2] == own and set(chosen.given[2:]) <= {"bob", "living room", "lamp"}
    assert len(chosen.given) == 4
    nothing = bias_lists.bias_list(reference, own, 0, pool, rng)
    assert nothing.given == () and set(nothing.words) == set(own)
    anti = bias_lists.anti_list(reference, own, pool, rng)
    assert set(anti.given) == {"bob", "living room", "lamp"} and anti.own == own


def said(text, names, **slots):
    custom = {"names": names, "slots": slots}
    return SimpleNamespace(supervisions=[SimpleNamespace(text=text, custom=custom)])


def test_words_before_names_of_each_kind():
    cuts = [
        said("call Anna Smith", ["anna", "smith"], contact="anna smith"),
        said("play jazz by anna", ["anna"], artist="anna"),
        said("the lunch with bob", ["bob"], event="lunch with bob"),
        said("jazz please", ["jazz"], genre="jazz"),
        said("stop", []),
        said("call ivo", ["ivo"], contact=["ivo"]),
        SimpleNamespace(
            supervisions=[SimpleNamespace(text="call bo", custom={"names": ["bo"], "slots": "bo"})]
        ),
        SimpleNamespace(supervisions=[SimpleNamespace(text=None, custom=None)]),
    ]
    assert list(name_kinds.occurrences(cuts[0])) == [
        ("anna", "contact", "call"),
        ("smith", "contact behind a name", "anna"),
    ]
    prefixes = name_kinds.activation_prefixes(cuts)
    assert prefixes == {
        "artist": {"by"},
        "contact": {"call"},
        "contact behind a name": {"anna"},
        "event": {"with"},
        "genre": set(),
    }
    others = [said("text ivo", ["ivo"], contact="ivo"), said("turn to news", ["news"], station="news")]
    assert name_kinds.words_before([*cuts, *others], prefixes) == {
        "anna": {"by", "call"}, "smith": {"anna"}, "bob": {"with"}, "ivo": {"call"},
    }  # fmt: skip


def test_the_fewest_prefixes_that_nearly_all_names_come_after():
    often = [said(f"{word} anna", ["anna"], contact="anna") for word in ["call"] * 70 + ["text"] * 28]
    rare = [said(f"{word} anna", ["anna"], contact="anna") for word in ("hug", "thank")]
    assert name_kinds.activation_prefixes(often + rare) == {"contact": {"call", "text"}}
    many = [said(f"w{k} anna", ["anna"], contact="anna") for k in range(99)]
    assert name_kinds.activation_prefixes(many) == {"contact": set()}


def test_the_bonus_is_the_one_with_the_fewest_errors_over_all_lists():
    small, good, large = (PhraseBonus(score) for score in (0.5, 1.0, 2.0))
    assert bias_metrics.best_bonus([(small, [9, 10]), (good, [5, 11]), (large, [3, 20])]) == good


def test_blank_posteriors_are_those_of_the_search(tmp_path):
    packed = tiny_packed(tmp_path)
    features_1NF = fbank(torch.from_numpy(noise(9, 1))[None], packed.fbank_config)
    with torch.no_grad():
        encoded_1TD, _ = packed.model.step(features_1NF, packed.model.initial_state(1))
        (result,) = greedy(packed.model, encoded_1TD, torch.tensor([encoded_1TD.shape[1]]))
        blank_T = blank_posteriors(packed.model, encoded_1TD[0], result)
    assert result.tokens
    search = BeamSearch(packed.model, BeamConfig(1, 1e9))
    state = search.initial()
    for t, encoded_D in enumerate(encoded_1TD[0]):
        state = search.advance(state, encoded_D[None])
        kept = search.blank_posterior(state)
        assert kept == pytest.approx(blank_T[t], abs=1e-5) or (t in result.frames and kept == 0)


def test_training_learns_the_end_and_repeats_digit_for_digit():
    def example(index):
        generator = torch.Generator().manual_seed(index)
        end, num_frames = 5 + index % 9, 30
        ended_T = (torch.arange(num_frames) >= end).float()
        encoded_TD = torch.randn(num_frames - index % 3, 6, generator=generator)
        since_T = (torch.arange(num_frames) - end + 2).clamp_min(0)
        pause_TD = torch.stack([since_T, since_T > 0, torch.ones(num_frames), torch.ones(num_frames)], 1)
        keep = len(encoded_TD)
        change_TF = torch.randn(keep, 5, generator=generator)
        ended_T2 = torch.stack([ended_T, torch.arange(num_frames) + 0.5 >= end], 1)
        return Example(encoded_TD, pause_TD.float()[:keep], change_TF, ended_T2[:keep].float())

    examples = [example(index) for index in range(64)]
    model = train_endpointer(examples, 6, seed=1, epochs=25)
    with torch.no_grad():
        assert endpoint_loss(model, examples) < 0.25
        # Padding counts for nothing: a batch is the mean over the frames of both.
        first, second = (endpoint_loss(model, [examples[k]]).item() for k in (0, 1))
        sizes = [len(examples[k].ended_T2) for k in (0, 1)]
        mean = np.average([first, second], weights=sizes)
        assert endpoint_loss(model, examples[:2]).item() == pytest.approx(mean, abs=1e-5)
    again = train_endpointer(examples, 6, seed=1, epochs=25)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
