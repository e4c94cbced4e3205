"""The service over HTTP: orders of messages, what it refuses and why, what comes while it is at work."""

import asyncio
import struct
import threading
import time
import zlib

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cloud.limits import MAX_LETTERS, MAX_WORDS
from pipeline.cloud.service import create_app
from pipeline.cloud.wire import MAX_BODY_BYTES, MEDIA_TYPE, answer_from_json, known_words, revision_path
from pipeline.decoding.lattice import Arc, build
from pipeline.decoding.lattice_format import CHECKSUM, FIXED, write_lattice
from tests.serving import WORDS, FirstPass, lattice_bytes, post, said_by


@pytest.fixture(scope="module")
def service():
    with TestClient(create_app(FirstPass(), {"weights": {}})) as client:
        yield client


def test_an_answer_has_the_text_hypotheses_and_intent(service):
    for number, words in enumerate((WORDS, None)):
        data = lattice_bytes(1, words)
        reply = post(service, ("answer", 1, number + 1), data)
        answer = answer_from_json(reply.content)
        assert reply.status_code == 200 and answer.text == answer.n_best[0].text == said_by(data)
        assert (answer.turn, answer.revision, answer.source) == (1, number + 1, "cloud")
        assert (answer.intent, answer.intent_probability) == ("lamp", 0.9)
    assert service.get("/health").json()["status"] == "ok"


def test_doubled_late_and_contradictory_messages(service):
    first, second = lattice_bytes(1), lattice_bytes(2)
    assert post(service, ("order", 1, 2), first).status_code == 200
    assert post(service, ("order", 1, 2), first).json()["text"] == said_by(first)
    assert post(service, ("order", 1, 2), second).status_code == 409
    late = post(service, ("order", 1, 1), second)
    assert late.status_code == 409 and "late" in late.json()["reason"]
    for _ in range(2):
        assert service.post(revision_path("order", 1, 2, "revise")).status_code == 204
    assert post(service, ("order", 1, 2), first).status_code == 409, "it was withdrawn"
    assert service.post(revision_path("order", 1, 2, "adopt")).status_code == 404
    assert post(service, ("order", 1, 4), second).status_code == 200
    for _ in range(2):
        assert service.post(revision_path("order", 1, 4, "adopt")).status_code == 204
    assert post(service, ("order", 1, 5), first).status_code == 409, "the turn is over"
    assert post(service, ("order", 1, 4), second).json()["text"] == said_by(second)
    for _ in range(2):
        assert service.delete("/v1/streams/order").status_code == 204
    assert post(service, ("order", 1, 1), first).status_code == 200


def test_a_final_is_answered_however_late_but_once_for_a_turn(service):
    data = lattice_bytes(3)
    final = {"params": {"final": "true"}}
    assert post(service, ("final", 5, 1), lattice_bytes(4)).status_code == 200
    for _ in range(2):
        assert post(service, ("final", 2, 1), data, **final).json()["text"] == said_by(data)
    assert post(service, ("final", 2, 3), data, **final).status_code == 409
    assert post(service, ("final", 5, 1), lattice_bytes(4)).status_code == 200, "turn 5 still stands"


def test_malformed_requests_get_the_reason(service):
    data = lattice_bytes(1)
    path, good = revision_path("wrong", 1, 1), {"content-type": MEDIA_TYPE}

    def chunks():
        for _ in range(20):
            yield bytes(MAX_BODY_BYTES // 10)

    long_path = [Arc(n, n + 1, "a", -1.0, 0.0, n, n + 1) for n in range(MAX_WORDS + 1)]
    long_word = [Arc(0, 1, "a" * (MAX_LETTERS + 1), -1.0, 0.0, 0, 1)]
    cases = [
        (service.post(path, content=data), 415, "content type"),
        (service.post(path, content=data, headers={"content-type": "application/json"}), 415, MEDIA_TYPE),
        (service.post(path, content=b"", headers=good), 422, "magic"),
        (service.post(path, content=data[:-1], headers=good), 422, "header says"),
        (service.post(path, content=bytes(MAX_BODY_BYTES + 1), headers=good), 413, str(MAX_BODY_BYTES)),
        (service.post(path, content=chunks(), headers=good), 413, str(MAX_BODY_BYTES)),
        (service.post(path, content=lattice_bytes(1, ["other"]), headers=good), 422, "known words"),
        (service.post(path, content=write_lattice(build(0, 129, long_path, 200)), headers=good), 422, "words"),
        (service.post(path, content=write_lattice(build(0, 1, long_word, 2)), headers=good), 422, "letters"),
        (service.post("/v1/streams/a%20b/turns/1/revisions/1", content=data, headers=good), 422, "stream_id"),
        (service.post("/v1/streams/a/turns/-1/revisions/1", content=data, headers=good), 422, "turn"),
        (service.post("/v1/streams/a/turns/1/revisions/9999999999", content=data, headers=good), 422, "revision"),
        (service.get(path), 405, "Method"),
        (service.get("/elsewhere"), 404, "Not Found"),
    ]  # fmt: skip
    for reply, status, words in cases:
        assert reply.status_code == status and words in reply.json()["reason"], (reply, reply.text)
    assert post(service, ("wrong", 1, 1), data).status_code == 200, "none of it left a trace"


class Slow(FirstPass):
    """Ranks when it is told to."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def rank(self, lattice):
        self.begun.set()
        assert self.go.wait(60)
        return super().rank(lattice)


def while_ranking(ranker, meanwhile):
    """The reply to (slow, 1, 1), and what `meanwhile(client)` gave while the service was at it."""

    async def talk():
        transport = httpx.ASGITransport(create_app(ranker))
        async with httpx.AsyncClient(transport=transport, base_url="http://cloud", timeout=60) as client:
            asked = asyncio.create_task(ask(client, 1))
            await asyncio.to_thread(ranker.begun.wait, 60)
            found = await meanwhile(client)
            ranker.go.set()
            return await asked, found

    return asyncio.run(talk())


async def ask(client, revision):
    headers = {"content-type": MEDIA_TYPE}
    return await client.post(revision_path("slow", 1, revision), content=lattice_bytes(1), headers=headers)


def test_what_is_revised_while_it_is_ranked_is_late():
    async def revise(client):
        return await client.post(revision_path("slow", 1, 1, "revise"))

    reply, revised = while_ranking(Slow(), revise)
    assert (reply.status_code, revised.status_code) == (409, 204)


def test_a_twin_that_comes_while_the_first_is_ranked_gets_the_same_answer():
    ranker = Slow()

    async def twin(client):
        asyncio.get_running_loop().call_later(0.2, ranker.go.set)
        return await ask(client, 1)

    first, second = while_ranking(ranker, twin)
    assert first.status_code == second.status_code == 200 and first.json() == second.json()


def test_more_than_can_wait_is_told_to_try_again(monkeypatch):
    monkeypatch.setattr("pipeline.cloud.service.NUM_WORKERS", 1)
    monkeypatch.setattr("pipeline.cloud.service.MAX_WAITING", 0)

    async def one_more(client):
        return await ask(client, 2)

    reply, refused = while_ranking(Slow(), one_more)
    assert (reply.status_code, refused.status_code) == (200, 503) and "try again" in refused.json()["reason"]


def test_alike_scores_and_many_paths_take_no_time():
    arcs = [Arc(n, n + 1, word, -1.0, 0.0, n, n + 1) for n in range(100) for word in ("a", "b", "c")]
    data = write_lattice(build(0, 100, arcs, 100))
    start = time.process_time()
    with TestClient(create_app(FirstPass())) as client:
        assert post(client, ("wide", 1, 1), data).status_code == 200
    assert time.process_time() - start < 10, "3 ** 100 paths were walked one by one"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: FIXED.pack(
    b"SLAT", 1, FIXED.size + len(tail), 0, -9.0, 0.1, 0.0, 0.0) + tail))  # fmt: skip
def test_random_bytes_are_refused_with_a_reason(service, data):
    reply = post(service, ("noise", 1, 1), data)
    assert reply.status_code == 422 and reply.json()["reason"].startswith("lattice:")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 50), damage=st.randoms(use_true_random=False), mended=st.booleans())
def test_damaged_lattices_are_refused_or_answered_for_what_they_now_are(service, seed, damage, mended):
    original = lattice_bytes(seed)
    data = bytearray(original)
    for _ in range(damage.randint(1, 4)):
        place = damage.randrange(len(data))
        change = damage.choice(["flip", "cut", "add"])
        if change == "flip":
            data[place] ^= 1 << damage.randrange(8)
        elif change == "add":
            data.insert(place, damage.randrange(256))
        elif len(data) > FIXED.size + CHECKSUM.size + 1:
            del data[place]
    if mended:
        data[5:9] = struct.pack("<I", len(data))
        data[-4:] = CHECKSUM.pack(zlib.crc32(bytes(data[:-4])))
    stream = f"damage{damage.randrange(10**9)}"
    reply = post(service, (stream, 1, 1), bytes(data))
    if reply.status_code == 200:
        assert mended or bytes(data) == original
        assert reply.json()["text"] == said_by(bytes(data))
    else:
        assert reply.status_code == 422 and reply.json()["reason"].startswith("lattice:")


def test_known_words_are_the_pieces_that_are_whole_words():
    assert known_words(["<blk>", "<unk>", "\u2581", "\u2581the", "ing", "\u2581a"]) == ["the", "a"]
