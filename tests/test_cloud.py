"""Service and client: damage, loss, doubles, delays, silence; and a device that may not use any of it."""

import asyncio
import dataclasses
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from random import Random

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cloud import sessions
from pipeline.cloud.client import ClientConfig, CloudClient
from pipeline.cloud.limits import MAX_LETTERS, MAX_WORDS
from pipeline.cloud.local import LocalOnly
from pipeline.cloud.service import MAX_STREAMS, Streams, create_app
from pipeline.cloud.sessions import Session, Stored, Verdict
from pipeline.cloud.wire import (
    MAX_BODY_BYTES,
    MEDIA_TYPE,
    Answer,
    Hypothesis,
    Ranked,
    answer_from_json,
    known_words,
    read_sent_lattice,
    revision_path,
)
from pipeline.decoding.lattice import Arc, best_path, build, n_best
from pipeline.decoding.lattice_format import CHECKSUM, FIXED, write_lattice
from pipeline.errors import UserError
from tests.conftest import ROOT, stage_environment
from tests.serving import served

WORDS = ["turn", "on", "the", "lamp"]
PATIENT = ClientConfig(timeout_s=60, deadline_s=60, attempts=2, pause_s=0.001)
HASTY = ClientConfig(timeout_s=0.05, deadline_s=0.2, attempts=2, pause_s=0.001)


class FirstPass:
    """A second pass that leaves the order alone and says that it was there."""

    words = WORDS

    def rank(self, lattice):
        paths = n_best(lattice, 5)
        return Ranked(tuple(Hypothesis(heard(path), path.score, 0.2) for path in paths), "lamp", 0.9)


def heard(path):
    return " ".join(["cloud:", *path.words])


def lattice_of(seed, num_nodes=6):
    random = Random(seed)

    def arc(source, target):
        word = random.choice([*WORDS, "anna", ""])
        return Arc(source, target, word, random.uniform(-9, 0), random.choice([0.0, 1.5]), source, target)

    ends = [(node, node + 1) for node in range(num_nodes - 1)]
    more = [sorted(random.sample(range(num_nodes), 2)) for _ in range(num_nodes)]
    return build(0, num_nodes - 1, [arc(*pair) for pair in [*ends, *more]], num_nodes)


def lattice_bytes(seed, words=WORDS):
    return write_lattice(lattice_of(seed), words)


@pytest.fixture(scope="module")
def service():
    with TestClient(create_app(FirstPass(), {"weights": {}})) as client:
        yield client


def post(service, key, data, **changes):
    arguments = {"content": data, "headers": {"content-type": MEDIA_TYPE}, **changes}
    return service.post(revision_path(*key), **arguments)


def said_by(data):
    return heard(best_path(read_sent_lattice(data, WORDS)))


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


KEYS = st.tuples(st.integers(1, 3), st.integers(1, 3))
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["speculation", "final", "adopt", "revise"]), KEYS, st.integers(0, 1)),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(messages=MESSAGES)
def test_sessions_keep_their_promises_for_any_messages(messages):
    session, ended, withdrawn = Session(), {}, set()
    for kind, key, lattice in messages:
        before, digest = session, bytes([lattice])
        if kind in ("speculation", "final"):
            verdict = sessions.judge(session, key, digest, kind == "final")
            if verdict in (Verdict.NEW, Verdict.REPEATED):
                adopted = kind == "final" or (key in session.answers and session.answers[key].adopted)
                stored = session.answers.get(key) or Stored(digest, Answer(*key, f"{key} {lattice}"))
                session = sessions.remember(session, key, dataclasses.replace(stored, adopted=adopted))
                assert session.answers[key].answer.text == f"{key} {lattice}"
                assert kind == "final" or verdict is Verdict.REPEATED or key not in withdrawn
                assert sessions.judge(session, key, digest, True) is Verdict.REPEATED
        elif kind == "adopt":
            session, found = sessions.adopt(session, key)
            assert found == (key in before.answers) and (found or session == before)
        else:
            session = sessions.revise(session, key)
            withdrawn |= {(turn, n) for turn in range(1, 4) for n in range(1, 4) if (turn, n) <= key}
            assert sessions.revise(session, key) == session
        for other, stored in session.answers.items():
            if stored.adopted:
                assert ended.setdefault(other[0], other) == other, "a turn ends once"
        assert set(ended) <= {turn for turn, _ in session.answers}
        assert (session.newest, session.closed) >= (before.newest, before.closed)
        waiting = [other for other, stored in session.answers.items() if not stored.adopted]
        assert len({turn for turn, _ in waiting}) == len(waiting), "one speculation of a turn at a time"


def test_what_the_service_remembers_is_bounded():
    streams = Streams()
    for number in range(MAX_STREAMS + 5):
        streams.put(str(number), Session((1, 1)))
    assert len(streams) == MAX_STREAMS and streams.get("0") == Session() != streams.get("5")
    session = Session()
    for turn in range(100):
        session = sessions.remember(session, (turn, 1), Stored(b"", Answer(turn, 1, ""), adopted=True))
    assert len(session.answers) == sessions.MEMORY_TURNS


# The client.


def client_of(handler, config=PATIENT, **more):
    return CloudClient("http://cloud", WORDS, config, transport=httpx.MockTransport(handler), **more)


def in_process(app, config=PATIENT, wrap=lambda transport: transport):
    return CloudClient("http://cloud", WORDS, config, transport=wrap(httpx.ASGITransport(app)))


def test_client_and_service_together_and_the_bytes_between_them():
    data, told = lattice_bytes(7), []
    client = CloudClient(
        "http://cloud", WORDS, PATIENT, lambda *news: told.append(news), httpx.ASGITransport(create_app(FirstPass()))
    )  # fmt: skip
    client.submit("a", 1, 1, lattice_bytes(8))
    client.cancel("a", 1, 1)
    client.submit("a", 1, 3, data)
    client.submit("a", 1, 3, data)
    answer = client.adopt("a", 1, 3).result(60)
    client.reset("a")
    client.close()
    client.close()
    assert (answer.text, answer.source, answer.intent) == (said_by(data), "cloud", "lamp")
    assert told == [("a", answer)] and client.traffic.fallbacks == client.traffic.failures == 0
    assert 1 <= client.traffic.requests <= 5 and client.traffic.sent_bytes > client.traffic.lattice_bytes
    assert client.traffic.lattice_bytes in (len(data), len(data) + len(lattice_bytes(8)))
    assert client.traffic.received_bytes > len(answer.text)


def test_over_real_sockets():
    with served(FirstPass()) as url:
        client, data = CloudClient(url, WORDS, PATIENT), lattice_bytes(7)
        client.submit("a", 1, 1, data)
        answer = client.adopt("a", 1, 1).result(60)
        client.close()
    assert (answer.text, answer.source) == (said_by(data), "cloud")
    assert client.traffic.sent_bytes < len(data) + 800, "HTTP's own lines are a few hundred bytes a request"


def test_without_a_service_the_device_answers_in_time():
    data = lattice_bytes(7)
    expected = " ".join(best_path(read_sent_lattice(data, WORDS)).words)

    async def silent(request):
        await asyncio.sleep(100)

    def away(request):
        raise httpx.ConnectError("nobody listens")

    answered = Answer(1, 1, "something else")
    replies = [httpx.Response(500), httpx.Response(503), httpx.Response(409, json={"reason": "late"}),
               httpx.Response(302, headers={"location": "http://elsewhere"}), httpx.Response(200, text="no JSON"),
               httpx.Response(200, json=[1]), httpx.Response(200, content=b"x" * 10**6),
               httpx.Response(200, json={**dataclasses.asdict(answered), "turn": 2}),
               httpx.Response(200, json={**dataclasses.asdict(answered), "text": None})]  # fmt: skip
    handlers = [silent, away, *((lambda request, reply=reply: reply) for reply in replies)]
    for handler in handlers:
        client = client_of(handler, HASTY)
        client.submit("a", 1, 1, data)
        start = time.monotonic()
        answer = client.adopt("a", 1, 1).result(60)
        assert (answer.text, answer.source) == (expected, "device")
        assert time.monotonic() - start < 30 and client.traffic.fallbacks == 1
        client.close()


def test_it_tries_again_and_only_what_can_help():
    data, tried = lattice_bytes(7), []

    def recovers(request):
        tried.append((request.method, request.url.path, request.url.query))
        if len(tried) == 1:
            raise httpx.ReadError("cut off")
        return httpx.Response(200, json=dataclasses.asdict(Answer(1, 1, "yes")))

    client = client_of(recovers)
    client.submit("a", 1, 1, data)
    assert client.adopt("a", 1, 1).result(60).text == "yes"
    client.close()
    path = revision_path("a", 1, 1)
    assert tried == [("POST", path, b"")] * 2 + [("POST", f"{path}/adopt", b"")]
    assert client.traffic.failures == 1

    def refuses(request):
        tried.append((request.method, request.url.path, request.url.query))
        return httpx.Response(422, json={"reason": "no"})

    tried.clear()
    client = client_of(refuses)
    client.submit("a", 1, 1, data)
    assert client.adopt("a", 1, 1).result(60).source == "device"
    client.close()
    assert tried == [("POST", path, b""), ("POST", path, b"final=true")], (
        "once each: saying it again helps nobody"
    )


def test_what_cannot_be_asked():
    for url in ("", "cloud:8765", "ftp://cloud", "http://"):
        with pytest.raises(UserError, match="address"):
            CloudClient(url)
    client = client_of(lambda request: httpx.Response(204))
    with pytest.raises(ValueError, match="no stream"):
        client.submit("a/b", 1, 1, b"")
    with pytest.raises(KeyError):
        client.adopt("a", 1, 1).result(60)
    client.close()


class Unreliable(httpx.AsyncBaseTransport):
    """Loses requests and replies, sends requests twice, and lets copies of them come late."""

    def __init__(self, inner, seed):
        self.inner, self.random, self.late = inner, Random(seed), []

    async def handle_async_request(self, request):
        luck = self.random.random()
        if luck < 0.15:
            raise httpx.ConnectError("lost on the way")
        copies = [request.content if hasattr(request, "_content") else await request.aread()] * 2
        if luck < 0.4:
            self.late.append(
                httpx.Request(request.method, request.url, headers=request.headers, content=copies[0])
            )
        if self.late and self.random.random() < 0.5:
            await self._discard(self.late.pop(self.random.randrange(len(self.late))))
        if luck > 0.85:
            await self._discard(
                httpx.Request(request.method, request.url, headers=request.headers, content=copies[1])
            )
            raise httpx.ReadError("the reply was lost")
        return await self.inner.handle_async_request(request)

    async def _discard(self, request):
        await (await self.inner.handle_async_request(request)).aread()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_wire_does_every_adopted_turn_gets_the_answer_to_its_own_words(seed):
    random = Random(seed)
    client = in_process(create_app(FirstPass()), PATIENT, lambda inner: Unreliable(inner, seed))
    adopted = []
    for turn in range(1, 13):
        revision = 0
        for _ in range(random.randrange(3)):
            revision += 1
            client.submit("a", turn, revision, lattice_bytes(random.randrange(100)))
            client.cancel("a", turn, revision)
            revision += 1
        data = lattice_bytes(random.randrange(100))
        client.submit("a", turn, revision + 1, data)
        adopted.append((data, client.adopt("a", turn, revision + 1)))
    for data, future in adopted:
        answer = future.result(60)
        expected = said_by(data) if answer.source == "cloud" else said_by(data).removeprefix("cloud:").strip()
        assert answer.text == expected
    client.close()
    sources = [future.result().source for _, future in adopted]
    assert sources.count("cloud") >= 6 and client.traffic.fallbacks == sources.count("device")


def test_local_only_opens_no_socket(monkeypatch):
    def forbidden(*arguments, **more):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "__init__", forbidden)
    with pytest.raises(AssertionError, match="socket"):
        socket.create_connection(("127.0.0.1", 9))  # the guard sees what it should see
    told = []
    local = LocalOnly(WORDS, lambda *news: told.append(news))
    data = lattice_bytes(7)
    local.submit("a", 1, 1, lattice_bytes(8))
    local.cancel("a", 1, 1)
    local.cancel("a", 1, 1)
    local.submit("a", 1, 3, data)
    answer = local.adopt("a", 1, 3).result(0)
    assert (
        answer.source == "device"
        and f"cloud: {answer.text}".strip() == said_by(data)
        and told == [("a", answer)]
    )
    for key in (("a", 1, 1), ("a", 1, 3)):
        with pytest.raises(KeyError):
            local.adopt(*key)
    local.submit("a", 2, 1, data)
    local.reset("a")
    local.close()
    with pytest.raises(KeyError):
        local.adopt("a", 2, 1)


def test_local_only_does_not_even_load_what_could():
    script = (
        "import sys, pipeline.cloud.local; sys.exit(bool({'httpx', 'asyncio', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], env=stage_environment(), cwd=ROOT).returncode == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_subnormal=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["turn", "revision", "text", "n_best", "score"]), inner)
    ),
)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=60) | JSON.map(lambda content: json.dumps(content).encode()))
def test_no_answer_of_a_service_breaks_the_device(data):
    with pytest.raises(UserError):
        answer_from_json(data)


def test_known_words_are_the_pieces_that_are_whole_words():
    assert known_words(["<blk>", "<unk>", "\u2581", "\u2581the", "ing", "\u2581a"]) == ["the", "a"]
