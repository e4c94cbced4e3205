"""The engine: chunks, companions and speculation leave no mark on what it says; memory stays where it is."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from safetensors import safe_open
from safetensors.numpy import save_file

from pipeline.compression.packed_format import Coded
from pipeline.decoding import trail
from pipeline.decoding.batch_beam import beam_search
from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.endpoint_input import EndpointModelConfig
from pipeline.decoding.endpoint_model import EndpointModel
from pipeline.decoding.endpointer import EndpointConfig
from pipeline.decoding.greedy import greedy
from pipeline.decoding.lattice import best_path, n_best
from pipeline.decoding.lattice_format import read_lattice
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import best_tokens
from pipeline.errors import UserError
from pipeline.features.fbank import fbank
from pipeline.runtime.downstream import dispatch, hang_up, lattice_bytes
from pipeline.runtime.endpoint_score import (
    RULE,
    Endpointer,
    ModelScore,
    RuleScore,
    digest,
    find_endpointer,
    load_endpointer,
    write_endpointer,
)
from pipeline.runtime.engine import Engine, EngineConfig
from pipeline.runtime.events import FinalEnd, Partial, Revise, SpeculativeEnd
from pipeline.runtime.kernels import FastKernels
from pipeline.runtime.recognise import transcribe
from pipeline.runtime.speculation import Ledger, deliver
from pipeline.runtime.torch_kernels import TorchKernels
from pipeline.training.endpointer import changes_of_sound
from tests.tiny_model import noise, tiny_packed, write_tiny

THRESHOLDS = EndpointConfig(0.55, 0.8, hysteresis=0.1, max_silence_ms=800, max_speculations=3)


@dataclasses.dataclass(frozen=True)
class JumpyScore:
    """A score that the audio decides and nobody can foresee: all kinds of events come, in all orders."""

    weights_D: np.ndarray

    def initial(self):
        return 0.5

    def __call__(self, encoded_BD, pause_BD, hidden):
        # One after the other: a matrix product rounds differently for one row.
        new = [1 / (1 + float(np.exp(-(encoded_D @ self.weights_D)))) for encoded_D in encoded_BD]
        return [0.5 * (old + now) for old, now in zip(hidden, new, strict=True)], new

    def half(self, change_BF, hidden):
        return [0.5 + 0.5 * float(np.tanh(change_F.mean())) for change_F in change_BF], list(hidden)


def engine_of(packed, **config):
    generator = torch.Generator().manual_seed(3)
    score = JumpyScore(0.3 * torch.randn(24, generator=generator).numpy())
    return Engine(packed, EngineConfig(**config), Endpointer(score, THRESHOLDS))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return tiny_packed(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(packed):
    return engine_of(packed)


def trie(packed, *phrases):
    return BiasTrie.build([(packed.tokenizer.encode(phrase), 2.0) for phrase in phrases])


def heard(engine, samples_S, sizes=None, bias=None, from_s=0.0):
    """All events of a recording that comes in pieces of these sizes, the last one again and again."""
    state, events, at = engine.stream(bias, from_s), [], 0
    sizes = list(sizes or [len(samples_S)])
    while at < len(samples_S):
        size = sizes.pop(0) if len(sizes) > 1 else max(1, sizes[0])
        state, new = engine.accept(samples_S[at : at + size], state)
        events, at = events + new, at + size
    state, new = engine.finish(state)
    return events + new


def test_all_kinds_of_events_come(engine):
    kinds = Counter(type(event) for event in heard(engine, noise(8)))
    assert min(kinds[kind] for kind in (Partial, SpeculativeEnd, Revise, FinalEnd)) >= 1, kinds


@pytest.mark.parametrize("chunk", [160, 320, 1_280, 1_281, 7_777, 10_240, 40_000])
def test_the_chunk_size_changes_nothing(engine, chunk):
    samples_S = noise(2.5)
    assert heard(engine, samples_S, [chunk]) == heard(engine, samples_S)


@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(0, 5_000), min_size=2, max_size=9), from_s=st.sampled_from([0.0, 0.35]))
def test_no_way_of_cutting_changes_anything(engine, sizes, from_s):
    samples_S = noise(1.7, seed=1)
    assert heard(engine, samples_S, sizes, from_s=from_s) == heard(engine, samples_S, from_s=from_s)


def test_an_encoder_with_look_ahead_streams_too(tmp_path):
    engine = engine_of(tiny_packed(tmp_path, "emformer"))
    samples_S = noise(2.1)
    events = heard(engine, samples_S)
    assert events and heard(engine, samples_S, [999]) == events
    (first, second), both = engine.accept_many([samples_S, samples_S[:9_000]], [engine.stream()] * 2)
    assert both[0] + engine.finish(first)[1] == events
    assert both[1] + engine.finish(second)[1] == heard(engine, samples_S[:9_000])


def test_the_middle_of_a_frame_begins_speculations_and_ends_no_turn(packed):
    """The end-pointer is asked there once words have settled, of what training shows it."""
    seed, asked = 0, []

    @dataclasses.dataclass(frozen=True)
    class Asked(JumpyScore):
        def half(self, change_BF, hidden):
            asked.extend(change_BF)
            return [1.0] * len(change_BF), list(hidden)

    engine = Engine(
        packed, EngineConfig(), Endpointer(Asked(engine_of(packed).endpointer.score.weights_D), THRESHOLDS)
    )
    events = heard(engine, noise(8, seed), [3_000])
    halves = [event for event in events if event.time_ms % 80]
    assert halves and all(isinstance(event, SpeculativeEnd) for event in halves)
    assert any(event.time_ms % 80 == 0 for event in events if isinstance(event, FinalEnd))
    features_NF = fbank(torch.from_numpy(noise(8, seed))[None], packed.fbank_config)[0]
    every_TF = changes_of_sound(features_NF).numpy()
    assert len(asked) > 5 and all(np.abs(every_TF - change_F).max(1).min() < 1e-4 for change_F in asked)


def test_streams_that_go_together_say_to_the_last_bit_what_each_says_alone(engine, packed):
    """Different lengths, chunks, phrases and beginnings."""
    recordings = [noise(seconds, seed) for seed, seconds in enumerate((2.0, 1.1, 2.7, 0.05))]
    biases = [None, trie(packed, "kitchen light"), trie(packed, "play jazz", "ten"), None]
    alone = [heard(engine, samples_S, bias=b) for samples_S, b in zip(recordings, biases, strict=True)]
    states, events = [engine.stream(bias) for bias in biases], [[] for _ in recordings]
    drawn, at = np.random.default_rng(0), [0] * len(recordings)
    while any(at[k] < len(recordings[k]) for k in range(4)):
        sizes = drawn.integers(0, 4_000, 4)
        pieces = [recordings[k][at[k] : at[k] + sizes[k]] for k in range(4)]
        states, new = engine.accept_many(pieces, states)
        at = [a + len(piece) for a, piece in zip(at, pieces, strict=True)]
        events = [old + more for old, more in zip(events, new, strict=True)]
    assert alone == [old + engine.finish(state)[1] for old, state in zip(events, states, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_compiled_and_torch_kernels_say_the_same(packed, seed):
    """Events, and lattices with scores within rounding; with and without phrases."""
    fast = engine_of(packed)
    slow = Engine(packed, fast.config, fast.endpointer, TorchKernels(packed))
    assert isinstance(fast.kernels, FastKernels)
    for bias in (None, trie(packed, "play jazz", "the kitchen", "ten")):
        ours, expected = (heard(engine, noise(6, seed), bias=bias) for engine in (fast, slow))
        assert len(ours) > 10 and any(isinstance(event, FinalEnd) for event in ours)
        for one, other in zip(ours, expected, strict=True):
            assert dataclasses.replace(one, lattice=None) == dataclasses.replace(other, lattice=None)
            if one.lattice:
                assert [arc[:3] for arc in one.lattice.arcs] == [arc[:3] for arc in other.lattice.arcs]
                scores = [[arc.acoustic for arc in event.lattice.arcs] for event in (one, other)]
                assert np.allclose(*scores, atol=1e-3)


def test_what_is_not_compiled_goes_by_torch(packed, tmp_path):
    assert isinstance(Engine(tiny_packed(tmp_path, "emformer")).kernels, TorchKernels)
    contents, name = packed.contents, "joiner.output.weight"
    wide = Coded(128 * contents.coded[name].integers, contents.coded[name].scale_index)
    contents = dataclasses.replace(contents, coded={**contents.coded, name: wide})
    assert isinstance(Engine(dataclasses.replace(packed, contents=contents)).kernels, TorchKernels)


def test_state_goes_in_and_out(engine):
    state, _ = engine.accept(noise(0.7), engine.stream())
    first, second = engine.accept(noise(1.2, 1), state), engine.accept(noise(1.2, 1), state)
    assert first[1] == second[1] and engine.finish(first[0])[1] == engine.finish(second[0])[1]


@pytest.mark.parametrize("seed", range(4))
def test_finals_are_those_of_an_engine_that_never_speculates(packed, seed):
    """Words, times and lattices, to the last bit; adopted speculations held the very lattice of the final."""
    samples_S = noise(10, seed)
    speculating = engine_of(packed)
    thresholds = dataclasses.replace(THRESHOLDS, max_speculations=0)
    silent = Engine(
        packed, speculating.config, dataclasses.replace(speculating.endpointer, config=thresholds)
    )
    events = heard(speculating, samples_S)
    finals = [event for event in events if isinstance(event, FinalEnd)]
    plain = [event for event in heard(silent, samples_S) if isinstance(event, FinalEnd)]
    assert [dataclasses.replace(event, revision=0) for event in finals] == [
        dataclasses.replace(event, revision=0) for event in plain
    ]
    for event in events:
        if event.lattice is not None and event.text:
            assert " ".join(best_path(event.lattice).words) == event.text
    standing = {(e.turn, e.revision): e for e in events if isinstance(e, SpeculativeEnd)}
    adopted = [final for final in finals if (final.turn, final.revision) in standing]
    assert all(final.lattice == standing[final.turn, final.revision].lattice for final in adopted)
    assert seed or adopted


@pytest.mark.parametrize("num_states, search", [(1, greedy), (BeamConfig().num_states, beam_search)])
def test_one_turn_without_end_is_the_search_of_the_whole_recording(packed, num_states, search):
    """By other code: greedily with one hypothesis, the batch's beam search with as many as is usual."""
    never = Endpointer(RuleScore(1e9), dataclasses.replace(THRESHOLDS, max_silence_ms=1e9))
    engine = Engine(packed, EngineConfig(BeamConfig(num_states), max_turn_s=99), never)
    for from_s in (0.0, 0.5):
        events = heard(engine, noise(9, 1), [2_000], from_s=from_s)
        assert events[-1].text == transcribe(packed, noise(9, 1), from_s, search).text != ""
        assert isinstance(events[-1], FinalEnd) and not any(isinstance(e, FinalEnd) for e in events[:-1])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), num_states=st.integers(1, 6), biased=st.booleans())
def test_the_kept_best_path_is_that_of_the_whole_lattice(packed, seed, num_states, biased):
    bias = trie(packed, "the kitchen", "ten minutes", "is") if biased else None
    search = BeamSearch(packed.model, BeamConfig(num_states), bias)
    features_1NF = fbank(torch.from_numpy(noise(1.2, seed))[None], packed.fbank_config)
    with torch.no_grad():
        encoded_1TD, _ = packed.model.step(features_1NF, packed.model.initial_state(1))
    state, trails = search.initial(), trail.START
    for t, encoded_D in enumerate(encoded_1TD[0]):
        state = search.advance(state, encoded_D[None])
        trails = trail.extend(trails, state.moves, t)
        best = trails[search.best_state(state)]
        slow = best_tokens(search.finish(state))
        assert trail.tokens_of(best) == slow.tokens
        assert trail.last_frame(best) == (slow.frames[-1] if slow.frames else -1)


def size_of(thing, seen):
    """Numbers and objects that a state holds on to, each once."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.untyped_storage().nbytes() if thing.untyped_storage().data_ptr() not in seen else 0
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, torch.nn.Module | Engine):
        return 0
    if dataclasses.is_dataclass(thing):
        return 50 + sum(size_of(getattr(thing, f.name), seen) for f in dataclasses.fields(thing))
    if isinstance(thing, dict):
        return 50 + sum(size_of(key, seen) + size_of(value, seen) for key, value in thing.items())
    if isinstance(thing, tuple | list):
        return 50 + sum(size_of(item, seen) for item in thing)
    return 30


@pytest.mark.parametrize("level", [1.0, 0.0])
def test_memory_is_flat(packed, level):
    """Minutes of babble without a pause, and of nothing."""
    endpointer = Endpointer(RuleScore(), RULE.config)
    engine = Engine(packed, EngineConfig(BeamConfig(3), max_turn_s=3.0, idle_s=2.0), endpointer)
    state, sizes, finals = engine.stream(), [], 0
    for minute in range(10):
        state, events = engine.accept(level * noise(9.0, minute), state)
        finals += sum(isinstance(event, FinalEnd) for event in events)
        turn = state.turn._replace(standing=None, lattice=None)
        sizes.append(size_of(state._replace(turn=turn), set()))
        assert len(state.turn.beam.frames) * 0.08 <= 3.0
    assert max(sizes[5:]) <= 2 * max(sizes[:5])
    assert finals >= 10 or not level


def test_other_phrases_come_with_the_next_turn(packed):
    engine = Engine(packed, EngineConfig(max_turn_s=1.0), Endpointer(RuleScore(), RULE.config))
    first, second = trie(packed, "jazz"), trie(packed, "kitchen")
    state, _ = engine.accept(noise(0.5), engine.stream(first))
    state = engine.with_bias(state, second)
    state, _ = engine.accept(noise(0.1), state)
    assert state.turn.search.bias is first
    state, events = engine.accept(noise(1.5), state)
    assert any(isinstance(event, FinalEnd) for event in events) and state.turn.search.bias is second


def test_silence_and_no_sound_at_all_say_nothing(engine):
    for samples_S in (np.zeros(0, np.float32), np.zeros(3, np.float32)):
        assert heard(engine, samples_S) == [] or samples_S.size
    for wrong in (np.array([np.nan]), np.zeros((4, 2)), np.array([np.inf, 0])):
        with pytest.raises(UserError, match="samples"):
            engine.accept(wrong, engine.stream())
    with pytest.raises(UserError, match="from_s"):
        engine.stream(from_s=-1)
    for wrong in ({"settle_ms": -1}, {"max_turn_s": 0.0}, {"idle_s": float("nan")}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            EngineConfig(**wrong)


class Fake:
    """A downstream that believes nothing: it keeps its own books and reads every lattice."""

    def __init__(self):
        self.open, self.done, self.words = set(), [], {}

    def submit(self, stream_id, turn, revision, lattice_bytes):
        key = (stream_id, turn, revision)
        assert (key, "adopted") not in self.done and key not in self.open, "submitted twice"
        self.open.add(key)
        self.words[key] = " ".join(best_path(read_lattice(lattice_bytes)).words)

    def cancel(self, *key):
        self.open.remove(key)
        self.done.append((key, "cancelled"))

    def adopt(self, *key):
        self.open.remove(key)
        self.done.append((key, "adopted"))
        return self.words[key]


def words_on_the_wire(event):
    """The text, or that of a path as good: scores are sent in steps, in which nearly equal paths may change places."""
    sent = read_lattice(lattice_bytes(event))
    words = " ".join(best_path(sent).words)
    if words != event.text:
        scores = {" ".join(path.words): path.score for path in n_best(event.lattice, 20)[::-1]}
        costs, num_arcs = [arc.acoustic for arc in event.lattice.arcs], len(event.lattice.arcs)
        assert scores[event.text] - scores[words] <= num_arcs * max(1e-4, (max(costs) - min(costs)) / 255)
    return words


class EngineAndDownstream(RuleBasedStateMachine):
    """Audio of any kind into an engine; its events over a line that loses, doubles and delays, to a downstream."""

    engine: Engine

    def __init__(self):
        super().__init__()
        self.state, self.line, self.sent, self.answers = self.engine.stream(), [], [], []
        self.fake, self.ledger, self.arrived = Fake(), Ledger(), []
        self.straight, self.straight_ledger, self.over = Fake(), Ledger(), False

    @precondition(lambda self: not self.over)
    @rule(seed=st.integers(0, 30), level=st.sampled_from([0.0, 0.01, 1.0]), size=st.integers(0, 12_000))
    def hear(self, seed, level, size):
        self.state, events = self.engine.accept(level * noise(0.75, seed)[:size], self.state)
        self.take_in(events)

    @precondition(lambda self: not self.over)
    @rule()
    def finish(self):
        self.take_in(self.engine.finish(self.state)[1])
        self.over = True

    @precondition(lambda self: self.over)
    @rule()
    def rest(self):
        """Nothing comes from a stream that has ended."""

    def take_in(self, events):
        self.sent += events
        self.line += events
        self.straight_ledger, answers = dispatch(events, self.straight_ledger, self.straight, "a")
        assert len(self.straight.open) <= 1, "two pieces of work wait"
        finals = [event for event in events if isinstance(event, FinalEnd)]
        assert [(a.turn, a.result) for a in answers] == [(f.turn, words_on_the_wire(f)) for f in finals]

    @precondition(lambda self: self.line)
    @rule(data=st.data(), doubled=st.booleans())
    def arrive(self, data, doubled):
        at = data.draw(st.integers(0, len(self.line) - 1))
        self.deliver(self.line[at] if doubled else self.line.pop(at))

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def lose(self, data):
        self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))

    def deliver(self, event):
        self.arrived.append(event)
        self.ledger, answers = dispatch([event], self.ledger, self.fake, "a")
        assert len(self.fake.open) <= 1, (
            "two pieces of work wait"
        )  # a late final's begins and ends beside one
        self.answers += answers
        assert all(answer.result == words_on_the_wire(event) for answer in answers)

    def teardown(self):
        while self.line:
            self.deliver(self.line.pop())
        for fake, ledger in ((self.fake, self.ledger), (self.straight, self.straight_ledger)):
            hang_up(ledger, fake, "a")
            assert not fake.open, "orphaned work"
            adopted = [key for key, end in fake.done if end == "adopted"]
            assert len(set(adopted)) == len(adopted) and set(dict(fake.done)) == set(fake.words)
        arrived = {event.turn for event in self.arrived if isinstance(event, FinalEnd)}
        assert sorted(answer.turn for answer in self.answers) == sorted(arrived)
        numbers = [event.turn for event in self.sent if isinstance(event, FinalEnd)]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.fixture(scope="module", autouse=True)
def engine_for_the_machine(engine):
    EngineAndDownstream.engine = engine


TestEngineAndDownstream = EngineAndDownstream.TestCase
# No shrinking: examples are slow, and the rules print what they did.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
TestEngineAndDownstream.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, phases=PHASES
)


def test_an_endpointer_file_comes_back_and_belongs_to_its_recogniser(tmp_path):
    torch.manual_seed(0)
    model, file = (
        EndpointModel(EndpointModelConfig(24)).eval(),
        tmp_path / "run/stream/endpointer.safetensors",
    )
    file.parent.mkdir(parents=True)
    (tmp_path / "run/pack").mkdir()
    recogniser = write_tiny(tmp_path / "run/pack/model.sotto")
    assert find_endpointer(recogniser) is RULE
    write_endpointer(file, model, THRESHOLDS, digest(recogniser))
    found = find_endpointer(recogniser)
    assert found.config == THRESHOLDS and find_endpointer(recogniser, file).config == THRESHOLDS
    encoded_TD, pause_TD, change_TF = torch.randn(9, 24), torch.rand(9, 4), torch.randn(9, 64)
    with torch.no_grad():
        whole_1T, hidden_1TH = model(encoded_TD[None], pause_TD[None])
        half_T = model.half(hidden_1TH, change_TF[None])[0].sigmoid()
    hidden, scores, halves = [found.score.initial()], [], []
    for t in range(9):
        (score,), hidden = found.score(encoded_TD[t : t + 1].numpy(), pause_TD[t : t + 1].numpy(), hidden)
        (half,), hidden = found.score.half(change_TF[t : t + 1].numpy(), hidden)
        scores.append(score)
        halves.append(half)
    assert np.allclose(scores, whole_1T[0].sigmoid(), atol=1e-6) and np.allclose(halves, half_T, atol=1e-6)
    assert isinstance(found.score, ModelScore)
    forged = {**model.arrays(), "bias_ih": np.zeros(47, np.float32)}
    save_file(forged, tmp_path / "forged", safe_open(file, "np").metadata())
    with pytest.raises(UserError, match="no end-pointer file"):
        load_endpointer(tmp_path / "forged")
    write_endpointer(file, model, THRESHOLDS, "another")
    assert find_endpointer(recogniser) is RULE
    with pytest.raises(UserError, match="another recogniser"):
        find_endpointer(recogniser, file)
    for content in (b"", b"{}", file.read_bytes()[:200], np.random.default_rng(0).bytes(500)):
        (tmp_path / "wrong").write_bytes(content)
        with pytest.raises(UserError, match="no end-pointer file"):
            load_endpointer(tmp_path / "wrong")
    with pytest.raises(UserError, match="no end-pointer file"):
        load_endpointer(tmp_path / "absent")


def test_the_rule_is_silence_after_words():
    pause_BD = np.array([[5.0, 0, 1, 2], [5, 0, 0, 0], [50, 0, 1, 1]], np.float32)
    scores, hidden = RuleScore(1_000)(np.zeros((3, 2), np.float32), pause_BD, [None] * 3)
    assert scores == pytest.approx([0.4, 0, 1])
    assert RuleScore(1_000).half(np.zeros((3, 2), np.float32), hidden)[0] == pytest.approx([0.44, 0, 1])


def test_a_partial_asks_for_nothing():
    assert deliver(Ledger(), Partial(1, 0, 80, "a"))[1] == []
