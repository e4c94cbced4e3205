"""`sotto listen --cloud` against a service on a real socket, and against none; what the stage `stream` sends."""

import json
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from pipeline import cli
from pipeline.cloud.wire import Hypothesis, Ranked, known_words
from pipeline.decoding.lattice import best_path, n_best
from pipeline.decoding.lattice_format import read_lattice, write_lattice
from pipeline.decoding.rescoring import Candidate
from pipeline.evaluation.lattice_metrics import EMPTY, sent_utterances
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine
from pipeline.runtime.listen import answer_line
from tests.serving import served
from tests.tiny_model import noise, tiny_packed, write_tiny


class Shouting:
    """A second pass that says the best path louder."""

    words: tuple[str, ...] = ()

    def rank(self, lattice):
        (best,) = n_best(lattice, 1)
        return Ranked((Hypothesis(" ".join(best.words).upper(), best.score, 1.0),), "lamp", 0.9)


@pytest.fixture
def service():
    with served(Shouting()) as url:
        yield url


def heard(folder, *arguments):
    """(finals' texts by turn, answers by turn) of a noisy recording."""
    soundfile.write(folder / "a.wav", noise(4), 16_000, subtype="PCM_16")
    command = ["listen", str(folder / "a.wav"), "--model", str(write_tiny(folder / "model.sotto")), "--json"]
    result = CliRunner().invoke(cli.app, [*command, *arguments])
    assert result.exception is None, result.exception
    records = [json.loads(line) for line in result.stdout.splitlines()]
    finals = {r["turn"]: r["text"] for r in records if r["event"] == "final_end"}
    return finals, {r["turn"]: r["result"] for r in records if r["event"] == "answer"}


def test_every_final_is_answered_by_the_service(tmp_path, service):
    finals, answers = heard(tmp_path, "--cloud", service)
    assert finals and set(answers) == set(finals)
    # Scores go over the wire in steps: of paths that are nearly equal another may be the best there.
    assert {answer["source"] for answer in answers.values()} == {"cloud"}
    assert all(answer["text"].isupper() and answer["intent"] == "lamp" for answer in answers.values())


def test_without_a_service_the_device_answers(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        finals, answers = heard(tmp_path, "--cloud", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert finals and set(answers) == set(finals)
    assert {answer["source"] for answer in answers.values()} == {"device"}


def test_an_answer_for_people():
    assert answer_line({"text": "lamp on", "intent": "turn_on", "source": "cloud"}) == "lamp on [turn_on]"
    assert answer_line({"text": "lamp", "intent": None, "source": "device"}) == "lamp (device)"
    assert answer_line("lamp") == "lamp"


def test_sent_utterances_are_the_engines_lattices_in_the_order_of_the_cuts(tmp_path):
    packed = tiny_packed(tmp_path)
    recordings = [noise(3), np.zeros(8_000, np.float32), noise(2, seed=1)]
    cuts = [
        SimpleNamespace(id=f"u{i}", supervisions=[SimpleNamespace(text="Play  Jazz", speaker=f"s{i}", custom={})])
        for i in range(3)
    ]  # fmt: skip

    def candidates(lattice):
        return [Candidate(tuple(path.words), path.score, 0.0, 0.0) for path in n_best(lattice, 3)]

    words = known_words([piece for piece, _ in packed.tokenizer.pieces])
    sent = sent_utterances(Engine(packed, endpointer=RULE), recordings, cuts, words, candidates)
    assert [(u.id, u.speaker, u.reference) for u in sent] == [
        (f"u{i}", f"s{i}", "play jazz") for i in range(3)
    ]
    assert [u.duration_s for u in sent] == [3.0, 0.5, 2.0]
    for utterance in sent:
        data = write_lattice(utterance.made, words)
        assert len(data) == utterance.lattice_bytes and read_lattice(data, words) == utterance.lattice
        assert utterance.candidates == candidates(utterance.lattice)
        assert utterance.best_text == " ".join(best_path(utterance.made).words)
    assert sent[0].best_text and sent[1].made == EMPTY
    assert write_lattice(EMPTY) and candidates(EMPTY)[0].words == ()
