"""The client: a service that is slow, away, wrong or behind a wire that loses, doubles and delays."""

import asyncio
import dataclasses
import json
import time
from random import Random

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cloud.client import ClientConfig, CloudClient
from pipeline.cloud.service import create_app
from pipeline.cloud.wire import Answer, answer_from_json, read_sent_lattice, revision_path
from pipeline.decoding.lattice import best_path
from pipeline.errors import UserError
from tests.serving import WORDS, FirstPass, lattice_bytes, said_by, served

PATIENT = ClientConfig(timeout_s=60, deadline_s=60, attempts=2, pause_s=0.001)
HASTY = ClientConfig(timeout_s=0.05, deadline_s=0.2, attempts=2, pause_s=0.001)


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
