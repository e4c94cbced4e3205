"""Beam search and lattices against enumeration; the format against itself, damage and invention."""

import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from math import exp, inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.beam import BeamSearch
from pipeline.decoding.greedy import greedy
from pipeline.decoding.lattice import (
    Arc,
    Lattice,
    best_path,
    build,
    n_best,
    posteriors,
    prune_to_arcs,
    prune_to_beam,
    total,
)
from pipeline.decoding.lattice_export import to_htk_slf, to_kaldi_compact, to_svg
from pipeline.decoding.lattice_format import read_lattice, write_lattice
from pipeline.decoding.oracle import oracle
from pipeline.decoding.search import BeamConfig
from pipeline.decoding.token_lattice import best_tokens, near_best
from pipeline.decoding.word_lattice import to_words
from pipeline.errors import UserError
from pipeline.models.transducer import Transducer, build_transducer
from tests import reference_lattice as slow

TEXTS = ["", "▁a", "b", "▁"]
OTHER_TEXTS = [["", "▁a", "▁b", "c"], ["", "", "▁a", "a"], ["", "a", "b", "ab"], ["", "▁", "", ""]]
WIDE = BeamConfig(10_000, inf, 10_000, 10_000)


def tiny(vocab_size: int, seed: int = 1, width: int = 5) -> Transducer:
    torch.manual_seed(seed)
    sizes = {"predictor": {"width": 6}, "joiner_width": 8, "num_mel_bins": 4, "vocab_size": vocab_size}
    model = build_transducer({**sizes, "encoder": {"name": "lstm", "num_layers": 1, "width": width}}).eval()
    model.joiner.output.weight.data *= 4
    model.joiner.output.bias.data[0] += 1
    return model


def encoded(num_frames: int, seed: int = 2, width: int = 5) -> torch.Tensor:
    return 2 * torch.randn(num_frames, width, generator=torch.Generator().manual_seed(seed))


def searched(model, encoded_TD, config=WIDE, bias=None):
    search = BeamSearch(model, config, bias)
    return search.finish(search.advance(search.initial(), encoded_TD))


class Pairs:
    """Credit for token 2 right after token 1, lent at token 1 and taken back where 2 does not come."""

    def start(self):
        return 0

    def step(self, node, token):
        return (1 if token == 1 else 0), (
            0.7 if token == 1 else 0.9 if token == 2 and node else 0
        ) - 0.7 * node

    def final(self, node):
        return -0.7 * node

    def unfinished(self, node):
        return 1 if node == 1 else None


def test_beam_of_one_is_greedy():
    model, num_tokens = tiny(11), 0
    encoded_BTD = torch.stack([encoded(40, seed) for seed in range(6)])
    for encoded_TD, expected in zip(
        encoded_BTD, greedy(model, encoded_BTD, torch.full((6,), 40)), strict=True
    ):
        found = best_tokens(searched(model, encoded_TD, BeamConfig(num_states=1)))
        assert (found.tokens, found.frames, found.bonus) == (expected.tokens, expected.frames, 0.0)
        assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-3)
        num_tokens += len(found.tokens)
    assert 20 < num_tokens < 220


@pytest.mark.parametrize("bias", [None, Pairs()], ids=["plain", "biased"])
@pytest.mark.parametrize("num_frames", [0, 1, 3, 5])
def test_wide_beam_finds_the_best_of_all_sequences(num_frames, bias):
    for seed in range(4):
        model, encoded_TD = tiny(4, seed), encoded(num_frames, seed)
        symbols, log_prob, bonus = max(
            slow.all_token_paths(model, encoded_TD, bias), key=lambda path: path[1] + path[2]
        )
        found = best_tokens(searched(model, encoded_TD, bias=bias))
        assert found.tokens == [symbol for symbol in symbols if symbol]
        assert found.frames == [t for t, symbol in enumerate(symbols) if symbol]
        assert (found.log_prob, found.bonus) == pytest.approx((log_prob, bonus), abs=1e-4)


@pytest.mark.parametrize("texts", [TEXTS, *OTHER_TEXTS], ids="".join)
@pytest.mark.parametrize("bias", [None, Pairs()], ids=["plain", "biased"])
def test_word_lattice_holds_every_word_sequence_once_with_its_best_score(texts, bias):
    for num_frames in (0, 2, 5):
        model, encoded_TD = tiny(4, num_frames), encoded(num_frames)
        expected = slow.best_by_words(slow.all_token_paths(model, encoded_TD, bias), texts)
        tokens = searched(model, encoded_TD, bias=bias)
        paths = slow.all_paths(to_words(tokens, texts, beam=inf, max_nodes=10**6))
        found = {tuple(slow.path_words(arcs)): slow.path_score(arcs) for arcs in paths}
        assert len(found) == len(paths)
        assert found == pytest.approx(expected, abs=1e-4)

        beam, best = 4.0, max(expected.values())
        near = slow.all_paths(to_words(tokens, texts, beam=beam, max_nodes=10**6))
        scores = {tuple(slow.path_words(arcs)): slow.path_score(arcs) for arcs in near}
        assert {words for words, score in expected.items() if score > best - beam + 1e-3} <= scores.keys()
        assert scores == pytest.approx({words: expected[words] for words in scores}, abs=1e-4)


@pytest.mark.parametrize("beam", [0.0, 2.0, 5.0, inf])
@pytest.mark.parametrize("bias", [None, Pairs()], ids=["plain", "biased"])
def test_arcs_near_the_best_path_are_those_of_the_paths_near_it(bias, beam):
    for seed in range(4):
        tokens = searched(tiny(4, seed), encoded(4, seed), BeamConfig(5, 6.0), bias)
        paths = slow.all_arc_paths(tokens)
        best = max(score for score, _ in paths)
        on_near_paths = {
            (t, arc) for score, arcs in paths if score >= best - beam for t, arc in enumerate(arcs)
        }
        kept = {(t, arc) for t, arcs in enumerate(near_best(tokens, beam).frames) for arc in arcs}
        assert on_near_paths == kept or beam == inf and on_near_paths <= kept
        words = [to_words(each, TEXTS, beam) for each in (tokens, near_best(tokens, beam))]
        scores = [
            {tuple(slow.path_words(a)): round(slow.path_score(a), 9) for a in slow.all_paths(w)}
            for w in words
        ]
        near = {text: score for text, score in scores[0].items() if score > best - beam + 1e-3}
        assert near.items() <= scores[1].items()


@pytest.mark.parametrize("max_nodes", [1, 10, 1000])
def test_best_path_of_the_lattice_is_the_best_of_the_beam(max_nodes):
    texts = ["", "", "▁a", "▁b", "c", "d", "▁", "▁ef", "g", "h", "▁i"]
    for seed in range(4):
        model, encoded_TD = tiny(11, seed), encoded(30, seed)
        tokens = searched(model, encoded_TD, BeamConfig(6, 8.0), Pairs())
        expected, lattice = best_tokens(tokens), to_words(tokens, texts, 6.0, max_nodes)
        found = best_path(lattice)
        assert tuple(found.words) == slow.spell(expected.tokens, texts) and found.words
        assert sum(arc.acoustic for arc in found.arcs) == pytest.approx(expected.log_prob, abs=1e-3)
        assert sum(arc.bonus for arc in found.arcs) == pytest.approx(expected.bonus, abs=1e-3)
        filled = {t for arc in found.arcs for t in range(arc.start_frame, arc.end_frame)}
        spoken = {t for t, k in zip(expected.frames, expected.tokens, strict=True) if texts[k].strip("▁")}
        assert spoken <= filled <= set(range(min(spoken), max(spoken) + 1))
        assert [arc.start_frame for arc in found.arcs] == sorted(arc.start_frame for arc in found.arcs)
        successors = [(arc.source, arc.word) for arc in lattice.arcs if arc.target < lattice.num_nodes - 1]
        assert len(set(successors)) == len(successors)


@settings(max_examples=20, deadline=None)
@given(chunks=st.lists(st.integers(0, 9), max_size=6))
def test_chunked_equals_whole_and_states_are_left_alone(chunks):
    search = BeamSearch(tiny(7), BeamConfig(4, 6.0), Pairs())
    encoded_TD = encoded(sum(chunks))
    state = search.initial()
    for piece_TD in encoded_TD.split(chunks) if chunks else []:
        before, state = state, search.advance(state, piece_TD)
        again = search.advance(before, piece_TD)
        assert (again.keys, again.totals, again.frames) == (state.keys, state.totals, state.frames)
    assert search.finish(state) == searched(search.model, encoded_TD, search.config, search.bias)


@pytest.mark.parametrize("bias", [None, Pairs()], ids=["plain", "biased"])
@pytest.mark.parametrize(
    "config",
    [
        BeamConfig(3, inf, 1),
        BeamConfig(50, 3.0),
        BeamConfig(5, 4.0, 2),
        BeamConfig(5, 4.0, 6, 1),
        BeamConfig(2, 4.0, 0),
    ],
    ids=str,
)
def test_pruned_search_against_its_slow_twin(config, bias):
    model, encoded_TD = tiny(6), encoded(15)
    search = BeamSearch(model, config, bias)
    state = search.initial()
    for t, (scores, num_arcs) in enumerate(slow.beam_search(model, encoded_TD, config, bias)):
        state = search.advance(state, encoded_TD[t : t + 1])
        assert dict(zip(state.keys, state.totals, strict=True)) == pytest.approx(scores, abs=1e-3)
        assert len(state.frames[-1]) == num_arcs
        assert list(state.totals) == sorted(state.totals, reverse=True)


def test_merged_states_keep_both_arcs():
    arcs = searched(tiny(3), encoded(4), WIDE).frames[3]
    assert len({(arc.target, arc.source, arc.token) for arc in arcs}) == len(arcs)
    # blank after (k, k) and another k lead to one state: two arcs from one state to one state
    assert len({(arc.target, arc.source) for arc in arcs}) < len(arcs)


def test_limits_that_make_no_sense():
    for limits in (
        {"num_states": 0},
        {"num_owing": -1},
        {"num_alike": 0},
        {"beam": -1.0},
        {"beam": float("nan")},
    ):
        with pytest.raises(ValueError, match="num_states"):
            BeamConfig(**limits)


# No subnormal numbers: training flushes them, and hypothesis asks for a processor that has them.
SCORES = st.floats(-200, 20, allow_subnormal=False).map(lambda score: round(score, 3))
WORDS = ["lamp", "on", "off", "héllo", 'a"b', "c\\d", "x<y&z", "ok'"]


@st.composite
def lattices(draw, words=WORDS):
    """A way from 0 to the last node, and arcs between any others."""
    num_nodes = draw(st.integers(2, 6))
    ends = [(node, node + 1) for node in range(num_nodes - 1)]
    pair = st.tuples(st.integers(0, num_nodes - 1), st.integers(0, num_nodes - 1)).filter(
        lambda p: p[0] < p[1]
    )
    arcs = []
    for source, target in ends + draw(st.lists(pair, max_size=8)):
        start, end = sorted([draw(st.integers(0, 60)), draw(st.integers(0, 60))])
        word = draw(st.sampled_from([*words, ""]))
        arcs.append(Arc(source, target, word, draw(SCORES), draw(st.just(0.0) | SCORES), start, end))
    return build(0, num_nodes - 1, arcs, 60)


@settings(max_examples=60, deadline=None)
@given(lattice=lattices(), num_paths=st.integers(1, 12))
def test_n_best_against_enumeration(lattice, num_paths):
    expected = sorted((slow.path_score(arcs) for arcs in slow.all_paths(lattice)), reverse=True)
    found = n_best(lattice, num_paths)
    assert [path.score for path in found] == pytest.approx(expected[:num_paths], abs=1e-6)
    assert len(found) == min(num_paths, len(expected))
    assert [slow.path_score(path.arcs) for path in found] == pytest.approx([path.score for path in found])
    assert best_path(lattice).score == pytest.approx(expected[0])
    worst_first = n_best(lattice, 1, lambda arc: -total(arc))[0]
    assert -worst_first.score == pytest.approx(expected[-1], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(lattice=lattices(WORDS[:3]), reference=st.lists(st.sampled_from(WORDS[:3]), max_size=6))
def test_oracle_against_enumeration(lattice, reference):
    found = oracle(lattice, reference)
    assert found.num_errors == slow.oracle_errors(lattice, reference)
    assert list(found.arcs) in slow.all_paths(lattice)
    assert [left for left, _ in found.pairs if left is not None] == reference
    assert [right for _, right in found.pairs if right is not None] == slow.path_words(found.arcs)
    assert sum(left != right for left, right in found.pairs) == found.num_errors


@settings(max_examples=60, deadline=None)
@given(lattice=lattices(), beam=st.floats(0, 100, allow_subnormal=False), max_arcs=st.integers(0, 12))
def test_posteriors_and_pruning_against_enumeration(lattice, beam, max_arcs):
    paths = slow.all_paths(lattice)
    best = max(map(slow.path_score, paths))
    weights = [exp(slow.path_score(arcs) - best) for arcs in paths]
    for arc, found in zip(lattice.arcs, posteriors(lattice), strict=True):
        # arcs alike in everything, ends included, have each their own path
        share = sum(w * arcs.count(arc) for w, arcs in zip(weights, paths, strict=True)) / sum(weights)
        assert found == pytest.approx(share / lattice.arcs.count(arc), abs=1e-6)
    pruned = prune_to_beam(lattice, beam)
    left = sorted(map(slow.path_score, slow.all_paths(pruned)))
    assert left[-1] == pytest.approx(best)
    assert sum(score > best - beam for score in left) == sum(
        slow.path_score(arcs) > best - beam for arcs in paths
    )
    small = prune_to_arcs(lattice, max_arcs)
    assert len(small.arcs) <= max(max_arcs, len(best_path(lattice).arcs))
    assert best_path(small).score == pytest.approx(best)
    assert len(prune_to_arcs(lattice, len(lattice.arcs)).arcs) == len(lattice.arcs)


def test_build_needs_a_path_and_no_circle():
    there, back = Arc(0, 1, "a", 0.0, 0.0, 0, 1), Arc(1, 0, "b", 0.0, 0.0, 1, 2)
    with pytest.raises(ValueError, match="no path"):
        build(0, 2, [there], 2)
    with pytest.raises(ValueError, match="circle"):
        build(0, 2, [there, back, Arc(1, 2, "c", 0.0, 0.0, 1, 2)], 2)


@settings(max_examples=100, deadline=None)
@given(lattice=lattices(), words=st.none() | st.lists(st.sampled_from([*WORDS, "more", ""]), max_size=6))
def test_format_round_trip(lattice, words):
    data = write_lattice(lattice, words)
    found = read_lattice(data, words)
    assert (found.num_nodes, found.num_frames) == (lattice.num_nodes, lattice.num_frames)
    for which in ("acoustic", "bonus"):
        scores = [getattr(arc, which) for arc in lattice.arcs]
        step = (max(scores) - min(scores)) / 253
        assert [getattr(arc, which) for arc in found.arcs] == pytest.approx(scores, abs=1.5 * step + 1e-4)
    bare = [[arc._replace(acoustic=0.0, bonus=0.0) for arc in kind.arcs] for kind in (lattice, found)]
    assert bare[0] == bare[1]


@settings(max_examples=100, deadline=None)
@given(lattice=lattices())
def test_rounding_errors_cancel_along_a_path(lattice):
    """A path is wrong by half a step for its end, and by as much for each node entered not by its first arc."""
    found = read_lattice(write_lattice(lattice))
    first = {arc.target: number for number, arc in reversed(list(enumerate(lattice.arcs)))}
    for which in ("acoustic", "bonus"):
        scores, after = ([getattr(arc, which) for arc in kind.arcs] for kind in (lattice, found))
        half_step = (max(scores) - min(scores)) / 253 / 2 * 1.001 + 1e-4
        for path in slow.all_paths(Lattice(lattice.num_nodes, lattice.num_frames, lattice.arcs)):
            numbers = [lattice.arcs.index(arc) for arc in path]
            late = sum(first[lattice.arcs[number].target] != number for number in numbers)
            wrong = sum(after[number] - scores[number] for number in numbers)
            assert abs(wrong) <= half_step * (1 + late)


def test_format_needs_six_bytes_an_arc():
    known = [f"word{number}" for number in range(400)]
    random = torch.Generator().manual_seed(5)
    arcs = []
    for node in range(50):
        for target in (node + 1, node + 1, node + 1, node + 2):
            word, offset = (
                torch.randint(400, (), generator=random),
                int(torch.randint(3, (), generator=random)),
            )
            score = -5 * float(torch.rand((), generator=random))
            arcs.append(Arc(node, target, known[word], score, 0.2, 4 * node + offset, 4 * target))
    lattice = build(0, 50, [arc for arc in arcs if arc.target <= 50], 204)
    assert len(write_lattice(lattice, known)) / len(lattice.arcs) < 6.6  # all of the file, 199 arcs
    with pytest.raises(UserError, match="known words"):
        read_lattice(write_lattice(lattice, known), known[1:])


def test_what_the_format_cannot_hold():
    arc = Arc(0, 1, "a", 0.0, 0.0, 0, 1)
    for wrong, reason in ((arc._replace(acoustic=-inf), "finite"), (arc._replace(end_frame=9), "frames")):
        with pytest.raises(ValueError, match=reason):
            write_lattice(Lattice(2, 5, (wrong,)))
    with pytest.raises(ValueError, match="prune"):
        write_lattice(Lattice(2, 5, (arc._replace(word="a" * (1 << 20)),)))


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=80), start=st.sampled_from([b"", b"SLAT", b"SLAT\x01"]))
def test_random_bytes_are_refused(data, start):
    with pytest.raises(UserError):
        read_lattice(start + data)


@settings(max_examples=150, deadline=None)
@given(lattice=lattices(), place=st.integers(0), change=st.integers(1, 255), cut=st.integers(0))
def test_damage_is_always_found(lattice, place, change, cut):
    data = write_lattice(lattice)
    damaged = bytearray(data)
    damaged[place % len(data)] ^= change
    for wrong in (bytes(damaged), data[: cut % len(data)], data + b"\0"):
        with pytest.raises(UserError) as caught:
            read_lattice(wrong)
        assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    lattice=lattices(WORDS[:3]),
    changes=st.lists(st.tuples(st.integers(13), st.integers(0, 255)), min_size=1, max_size=4),
    body=st.none() | st.binary(max_size=60),
)
def test_invented_bytes_with_a_right_checksum_are_refused_or_a_lattice(lattice, changes, body):
    """What the CRC does not catch: the parser behind it must hold on its own."""
    data = bytearray(write_lattice(lattice)[:-4])
    if body is not None:
        data[37:] = body
    for place, value in changes:
        data[13 + place % (len(data) - 13)] = value
    struct.pack_into("<I", data, 5, len(data) + 4)
    data += struct.pack("<I", zlib.crc32(bytes(data)))
    try:
        found = read_lattice(bytes(data))
    except UserError:
        return
    again = build(0, found.num_nodes - 1, found.arcs, found.num_frames)
    assert (again.num_nodes, len(again.arcs)) == (found.num_nodes, len(found.arcs))
    assert all(arc.source < arc.target and abs(total(arc)) < inf for arc in found.arcs)


@settings(max_examples=40, deadline=None)
@given(lattice=lattices())
def test_slf_reads_back(lattice):
    text = to_htk_slf(lattice, "one two")
    assert re.search(rf"^N={lattice.num_nodes} L={len(lattice.arcs)}$", text, re.M)
    assert len(re.findall(r"^I=", text, re.M)) == lattice.num_nodes
    arcs = []
    for line in re.findall(r"^J=.*", text, re.M):
        fields = dict(re.findall(r'(\w+)=("(?:\\.|[^"\\])*"|\S+)', line))
        word = "" if fields["W"] == "!NULL" else re.sub(r"\\(.)", r"\1", fields["W"][1:-1])
        scores, frames = (float(fields["a"]), float(fields["l"])), (int(fields["first"]), int(fields["past"]))
        arcs.append(Arc(int(fields["S"]), int(fields["E"]), word, *scores, *frames))
    assert tuple(arcs) == lattice.arcs


@settings(max_examples=40, deadline=None)
@given(lattice=lattices())
def test_kaldi_text_reads_back(lattice):
    utterance, *lines, final, blank, nothing = to_kaldi_compact(lattice, "one").split("\n")
    assert (utterance, final, blank, nothing) == ("one", f"{lattice.num_nodes - 1} 0,0,", "", "")
    for line, arc in zip(lines, lattice.arcs, strict=True):
        source, target, word, weight = line.split(" ")
        graph, acoustic, alignment = weight.split(",")
        frames = [int(number) for number in alignment.split("_") if number]
        assert (int(source), int(target)) == (arc.source, arc.target)
        assert word == (arc.word or "<eps>")
        assert (-float(acoustic), -float(graph)) == (arc.acoustic, arc.bonus)
        assert frames == list(range(arc.start_frame + 1, arc.end_frame + 1))


@settings(max_examples=20, deadline=None)
@given(lattice=lattices())
def test_svg_shows_every_arc(lattice):
    drawing = ElementTree.fromstring(to_svg(lattice))
    shown = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(shown) == sorted(arc.word or "ε" for arc in lattice.arcs)
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == lattice.num_nodes
