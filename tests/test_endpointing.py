"""The end of a turn: what the end-pointer may say, what a listener makes of a lossy line, the model of the score."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.decoding.endpoint_input import EndpointModelConfig, pause_features
from pipeline.decoding.endpoint_model import EndpointModel
from pipeline.decoding.endpointer import TICK_MS, EndpointConfig, initial_state, step
from pipeline.errors import UserError
from pipeline.runtime.events import FinalEnd, Partial, Revise, SpeculativeEnd, events_of
from pipeline.runtime.speculation import MEMORY_TURNS, ActionKind, Ledger, close, deliver

CONFIG = EndpointConfig(0.5, 0.9, hysteresis=0.1, max_silence_ms=400, max_wait_ms=800, max_speculations=3)
SCORES = st.sampled_from([0.0, 0.39, 0.4, 0.49, 0.5, 0.7, 0.89, 0.9, 1.0]) | st.floats(
    0, 1, allow_subnormal=False
)


def heard(scores, changed, config=CONFIG):
    """(kind, turn, revision, tick) of every decision over a list of scores and changes of words."""
    state, said = initial_state(), []
    for tick, (score, change) in enumerate(zip(scores, changed, strict=True)):
        state, decisions = step(state, score, tick, bool(change), config)
        said += [(decision.kind.value, decision.turn, decision.revision, tick) for decision in decisions]
    return said


@pytest.mark.parametrize(
    ("scores", "changed", "expected"),
    [
        ([0.6, 1.0], [0, 0], []),  # no words, no end
        ([0.1, 0.6, 0.6, 0.9], [1, 0, 0, 0], [("speculative_end", 1, 1, 1), ("final_end", 1, 1, 3)]),
        ([0.1, 0.95], [1, 0], [("final_end", 1, 1, 1)]),  # over both at once: nothing to speculate on
        ([0.6, 0.45, 0.39], [1, 0, 0], [("speculative_end", 1, 1, 0), ("revise", 1, 2, 2)]),  # hysteresis
        ([0.6, 0.95], [1, 1], [("speculative_end", 1, 1, 0), ("revise", 1, 2, 1), ("final_end", 1, 3, 1)]),
        (
            [0.6, 0.6],
            [1, 1],
            [("speculative_end", 1, 1, 0), ("revise", 1, 2, 1), ("speculative_end", 1, 3, 1)],
        ),
        ([0.1] * 11, [1] + [0] * 10, [("final_end", 1, 1, 10)]),  # 400 ms of silence
        (
            [0.6] + [0.1] * 10,
            [1] + [0] * 10,
            [("speculative_end", 1, 1, 0), ("revise", 1, 2, 1), ("final_end", 1, 3, 10)],
        ),
        ([0.6] * 11, [1] + [0] * 10, [("speculative_end", 1, 1, 0), ("final_end", 1, 1, 10)]),
        ([0.9] * 20, [0] * 20, [("final_end", 1, 1, 19)]),  # nobody spoke for 0.8 s
        ([0.9, 0.9, 0.9], [1, 0, 1], [("final_end", 1, 1, 0), ("final_end", 2, 1, 2)]),
    ],
)  # fmt: skip
def test_decisions_on_hand_made_scores(scores, changed, expected):
    assert heard(scores, changed) == expected


def test_speculations_are_capped_and_can_be_forbidden():
    scores, changed = [0.6, 0.0] * 6 + [1.0], [1] + [0] * 12
    for cap in (0, 1, 2, 6):
        config = dataclasses.replace(CONFIG, max_speculations=cap, max_silence_ms=4_000)
        said = Counter(kind for kind, *_ in heard(scores, changed, config))
        assert said["speculative_end"] == said["revise"] == cap and said["final_end"] == 1


def test_impossible_scores_ticks_and_configs_are_errors():
    for score in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="score"):
            step(initial_state(), score, 0, False, CONFIG)
    with pytest.raises(ValueError, match="tick"):
        step(initial_state(7), 0.1, 6, False, CONFIG)
    for wrong in (
        {"speculative_threshold": 0.95},
        {"speculative_threshold": 0.0},
        {"final_threshold": 1.5},
        {"hysteresis": 0.5},
        {"hysteresis": -0.1},
        {"max_silence_ms": 0.0},
        {"max_wait_ms": -1.0},
        {"max_speculations": -1},
    ):
        with pytest.raises(UserError, match=next(iter(wrong))):
            dataclasses.replace(CONFIG, **wrong)


class LossyLine(RuleBasedStateMachine):
    """An end-pointer, a line that loses, doubles and delays, and the listener's ledger behind it.

    What is checked here keeps its own plain records and never asks the code under test for its state.
    """

    def __init__(self):
        super().__init__()
        self.state, self.tick, self.num_changes = initial_state(), -1, 0
        self.standing, self.sent, self.line = None, [], []
        self.turn, self.revision = 1, 0  # what a Partial carries
        self.ledger, self.arrived, self.actions = Ledger(), [], []

    @rule(score=SCORES, changed=st.booleans(), skipped=st.sampled_from([0, 0, 0, 2, 11]))
    def hear(self, score, changed, skipped):
        self.tick += 1 + skipped
        self.num_changes += changed
        self.state, decisions = step(self.state, score, self.tick, changed, CONFIG)
        text, lattice = f"words {self.num_changes}", object()
        events, self.standing = events_of(decisions, text, lattice, self.standing)
        events.insert(0, Partial(self.turn, self.revision, (self.tick + 1) * TICK_MS, text))
        self.sent += events
        self.line += events
        for event in events[1:]:
            self.turn = event.turn + isinstance(event, FinalEnd)
            self.revision = 0 if isinstance(event, FinalEnd) else event.revision

    @precondition(lambda self: self.line)
    @rule(data=st.data(), doubled=st.booleans())
    def arrive(self, data, doubled):
        at = data.draw(st.integers(0, len(self.line) - 1))
        self.take(self.line[at] if doubled else self.line.pop(at))

    @precondition(lambda self: self.line)
    @rule()
    def arrive_in_order(self):
        while self.line:
            self.take(self.line.pop(0))

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def lose(self, data):
        self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))

    @rule()
    def give_up_waiting(self):
        self.ledger, actions = close(self.ledger)
        self.actions += actions

    def take(self, event):
        known = event in self.arrived
        self.arrived.append(event)
        self.ledger, actions = deliver(self.ledger, event)
        assert not (known and actions), "a doubled event acts again"
        self.actions += actions
        latest = max((event.turn, event.revision) for event in self.arrived)
        assert all((a.turn, a.revision) == latest for a in actions if a.kind == ActionKind.START), "stale"
        done = self.keys(ActionKind.ADOPT) + self.keys(ActionKind.CANCEL)
        open_keys = [key for key in self.keys(ActionKind.START) if key not in done]
        assert len(open_keys) <= 1
        newest = max(event.turn for event in self.arrived)
        finals = {event.turn for event in self.arrived if isinstance(event, FinalEnd)}
        assert all(turn == newest and turn not in finals for turn, _ in open_keys), "orphaned work"

    def keys(self, kind):
        return [(action.turn, action.revision) for action in self.actions if action.kind == kind]

    @invariant()
    def events_of_a_turn_fit_together(self):
        ends = [event for event in self.sent if not isinstance(event, Partial)]
        assert [e.turn for e in ends if isinstance(e, FinalEnd)] == list(
            range(1, 1 + sum(isinstance(e, FinalEnd) for e in ends))
        )
        last, spoken, numbers = None, Counter(), []
        for event in ends:
            numbers.append((event.turn, event.revision))
            if isinstance(event, SpeculativeEnd):
                assert last is None, "a second speculation without a Revise"
                last = event
                spoken[event.turn] += 1
            elif isinstance(event, Revise):
                assert last is not None and last.turn == event.turn and event.reset
                last = None
            else:
                if last is not None:
                    assert (event.turn, event.revision) == (last.turn, last.revision)
                    assert event.text == last.text and event.lattice is last.lattice
                last = None
        assert numbers == sorted(numbers)
        assert all(count <= CONFIG.max_speculations for count in spoken.values())

    @invariant()
    def work_is_settled_once_and_finals_are_acted_upon_once(self):
        started, adopted, cancelled, run = (self.keys(kind) for kind in ActionKind)
        assert len(set(started)) == len(started)
        assert not Counter(adopted + cancelled) - Counter(started)
        order = [(a.turn, a.revision, a.kind) for a in self.actions]
        assert all(
            order.index((*key, ActionKind.START)) < order.index((*key, ActionKind.ADOPT)) for key in adopted
        )
        finals = {event.turn: event for event in self.arrived if isinstance(event, FinalEnd)}
        assert sorted(turn for turn, _ in adopted + run) == sorted(finals)
        texts = {(e.turn, e.revision): e.text for e in self.arrived if isinstance(e, SpeculativeEnd)}
        assert all(texts[key] == finals[key[0]].text for key in adopted)

    def teardown(self):
        while self.line:
            self.take(self.line.pop())
        self.give_up_waiting()
        started, adopted, cancelled, _ = (self.keys(kind) for kind in ActionKind)
        assert Counter(started) == Counter(adopted + cancelled)


TestLossyLine = LossyLine.TestCase
TestLossyLine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def test_late_speculations_start_nothing():
    speculation, revise = SpeculativeEnd(1, 1, 80, "a"), Revise(1, 2, 160, "a b")
    for later in (revise, Partial(1, 2, 240, "a b"), FinalEnd(1, 1, 240, "a"), Partial(2, 0, 400, "")):
        ledger, _ = deliver(Ledger(), later)
        assert deliver(ledger, speculation)[1] == []
        ledger, actions = deliver(Ledger(), speculation)
        assert [action.kind for action in actions] == [ActionKind.START]
        kind = ActionKind.ADOPT if isinstance(later, FinalEnd) else ActionKind.CANCEL
        assert [action.kind for action in deliver(ledger, later)[1]] == [kind]


def test_a_final_that_comes_too_late_to_be_told_from_its_double_is_dropped():
    ledger, actions = deliver(Ledger(), FinalEnd(1, 1, 0, ""))
    assert [action.kind for action in actions] == [ActionKind.RUN]
    ledger, _ = deliver(ledger, Partial(1 + MEMORY_TURNS, 0, 0, ""))
    assert deliver(ledger, FinalEnd(1, 1, 0, ""))[1] == []
    assert [a.turn for a in deliver(ledger, FinalEnd(2, 1, 0, ""))[1]] == [2]
    for turn in range(2, 500):
        ledger, _ = deliver(ledger, FinalEnd(turn, 1, 0, ""))
    assert len(ledger.finished) <= MEMORY_TURNS


def test_pause_features_by_hand():
    blank_T = np.array([1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0])
    pause_TD = pause_features([1, 1, 2], [True, False, True], blank_T)
    assert pause_TD[:, 0].tolist() == [1, 0, 0, 1, 2, 3, 4]
    assert np.allclose(pause_TD[:, 1], [1, 0.5, 0.5, 0.625, 0.7, 0.7, 0.9])  # five frames at most
    assert pause_TD[:, 2].tolist() == [0, 1, 1, 1, 1, 1, 1]
    assert pause_TD[:, 3].tolist() == [0, 1, 2, 2, 2, 2, 2]
    for until in range(8):  # causal
        known = [(frame, begins) for frame, begins in ((1, True), (1, False), (2, True)) if frame < until]
        early_TD = pause_features([frame for frame, _ in known], [b for _, b in known], blank_T[:until])
        assert np.array_equal(early_TD, pause_TD[:until])
    with pytest.raises(ValueError, match="must lie in"):
        pause_features([7], [True], blank_T)
    with pytest.raises(ValueError, match="word beginnings"):
        pause_features([1], [], blank_T)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 23), max_size=8))
def test_a_streamed_score_equals_the_whole_however_frames_are_cut(cuts):
    torch.manual_seed(0)
    model = EndpointModel(EndpointModelConfig(encoder_width=24)).eval()
    encoded_BTD = torch.randn(3, 23, 24)
    pause_BTD = torch.rand(3, 23, 4) * 9
    with torch.no_grad():
        (whole_BT, hidden_BTH), state, parts = model(encoded_BTD, pause_BTD), model.initial_state(3), []
        borders = [0, *sorted(cuts), 23]
        for start, end in zip(borders[:-1], borders[1:], strict=True):
            kept = state.clone()
            given = encoded_BTD[:, start:end], pause_BTD[:, start:end]
            logit_BT, part_BTH, state_after = model.step(*given, state)
            assert torch.equal(state, kept)
            state = state_after
            parts.append((logit_BT, part_BTH))
    for streamed, whole in zip(zip(*parts, strict=True), (whole_BT, hidden_BTH), strict=True):
        assert torch.allclose(torch.cat(streamed, 1), whole, atol=1e-6)


@pytest.mark.parametrize(("width", "num_weights"), [(128, 4842), (320, 7914)])
def test_the_model_is_tiny(width, num_weights):
    model = EndpointModel(EndpointModelConfig(width))
    assert sum(parameter.numel() for parameter in model.parameters()) == num_weights < 10_000


def test_the_model_learns_a_silence_of_five_frames():
    torch.manual_seed(0)
    model = EndpointModel(EndpointModelConfig(encoder_width=8))
    ends_B = torch.randint(3, 15, (32,))
    t_T = torch.arange(30)
    since_BT = (t_T - ends_B[:, None]).clamp_min(0).float()
    pause_BTD = torch.stack([since_BT, (since_BT > 0).float(), torch.ones(32, 30), torch.ones(32, 30)], -1)
    target_BT = (since_BT >= 5).float()
    encoded_BTD = torch.randn(32, 30, 8)
    half_BT = (since_BT + 1 >= 5).float()
    change_BTF = torch.cat([half_BT[..., None], torch.randn(32, 30, 63)], -1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        logit_BT, hidden_BTH = model(encoded_BTD, pause_BTD)
        both_BT2 = torch.stack([logit_BT, model.half(hidden_BTH, change_BTF)], -1)
        wanted_BT2 = torch.stack([target_BT, half_BT], -1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(both_BT2, wanted_BT2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert all(parameter.grad is not None for parameter in model.parameters())
