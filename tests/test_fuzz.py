"""A hundred thousand damaged, random and invented inputs: each is refused with a sentence, or is what it says.

Bytes are drawn many at a time, so that a case costs microseconds. Structure on top is hypothesis' work, in the tests of
each part. No case may take long: `each_in_time` looks at the slowest.
"""

import asyncio
import io
import json
import time
import zlib
from collections import Counter
from math import inf

import numpy as np
import pytest
from fastapi import HTTPException

from pipeline.cloud.service import create_app, usable_lattice
from pipeline.cloud.wire import MEDIA_TYPE, Answer, Hypothesis, answer_from_json, answer_to_json
from pipeline.decoding.lattice import build, total
from pipeline.decoding.lattice_format import CHECKSUM, FIXED, MAGIC, VERSION, read_lattice
from pipeline.errors import UserError
from pipeline.runtime.sources import pcm_chunks
from tests.serving import WORDS, FirstPass, lattice_bytes

NUM_DAMAGED, NUM_RANDOM, NUM_INVENTED = 55_000, 25_000, 10_000
NUM_PCM, NUM_ANSWERS, NUM_LATTICE_BODIES, NUM_REQUESTS = 5_000, 4_000, 4_000, 1_000
SLOWEST_S = 2.0  # of processor time, on a busy machine too


def test_there_are_enough_cases():
    lattices = NUM_DAMAGED + NUM_RANDOM + NUM_INVENTED
    assert lattices + NUM_PCM + NUM_ANSWERS + NUM_LATTICE_BODIES + NUM_REQUESTS >= 100_000


def each_in_time(cases, check):
    """`check` of every case; how often it gave what."""
    found, slowest_s, before = Counter(), 0.0, time.process_time()
    for case in cases:
        found[check(case)] += 1
        now = time.process_time()
        slowest_s, before = max(slowest_s, now - before), now
    assert slowest_s < SLOWEST_S
    return found


def refused(read, data):
    """Whether `read` refuses with one sentence; anything else that it raises is a crash."""
    try:
        read(data)
    except UserError as error:
        sentence = str(error)
        assert sentence and "\n" not in sentence
        return True
    return False


def damaged(originals, num, seed, bits=range(8)):
    """(original, damaged) bytes: one to three bits of these changed, then perhaps cut off or lengthened."""
    rng = np.random.default_rng(seed)
    which, num_changes = rng.integers(len(originals), size=num), rng.integers(1, 4, size=num)
    places, masks = rng.random((num, 3)), 1 << rng.choice(list(bits), size=(num, 3))
    ends, cuts = rng.integers(4, size=num), rng.random(num)
    for n in range(num):
        original = originals[which[n]]
        data = bytearray(original)
        for k in range(num_changes[n]):
            data[int(places[n, k] * len(data))] ^= int(masks[n, k])
        if ends[n] == 1:
            del data[int(cuts[n] * len(data)) :]
        elif ends[n] == 2:
            data += bytes(int(1 + 9 * cuts[n]))
        yield original, bytes(data)


def mended(data):
    """The same with a header and a checksum that fit, so that the parser behind them must hold on its own."""
    data = bytearray(data[: -CHECKSUM.size].ljust(FIXED.size, b"\0"))
    data[: len(MAGIC) + 1] = MAGIC + bytes([VERSION])
    data[5:9] = CHECKSUM.pack(len(data) + CHECKSUM.size)
    return bytes(data) + CHECKSUM.pack(zlib.crc32(data))


LATTICES = [lattice_bytes(seed, words) for seed in range(30) for words in (WORDS, None)]


def test_damaged_lattices_are_refused():
    def check(case):
        original, data = case
        assert data == original or (refused(read_lattice, data) and refused(with_words, data))
        return data != original

    assert each_in_time(damaged(LATTICES, NUM_DAMAGED, 1), check)[True] > 0.9 * NUM_DAMAGED


def with_words(data):
    return read_lattice(data, WORDS)


def test_random_bytes_are_refused():
    rng = np.random.default_rng(2)
    blob, starts = rng.bytes(1 << 16), [b"", MAGIC, MAGIC + bytes([VERSION]), LATTICES[0][: FIXED.size]]
    places, sizes = rng.integers(len(blob) - 200, size=NUM_RANDOM), rng.integers(200, size=NUM_RANDOM)
    cases = (
        starts[n % 4] + blob[at : at + size] for n, (at, size) in enumerate(zip(places, sizes, strict=True))
    )
    assert each_in_time(cases, lambda data: refused(read_lattice, data)) == {True: NUM_RANDOM}


def is_lattice(found):
    again = build(0, found.num_nodes - 1, found.arcs, found.num_frames)
    assert (again.num_nodes, len(again.arcs)) == (found.num_nodes, len(set(found.arcs)))
    assert all(arc.source < arc.target and abs(total(arc)) < inf for arc in found.arcs)
    return True


def test_invented_lattices_with_a_right_checksum_are_refused_or_lattices():
    def check(case):
        data = mended(case[1])
        return refused(with_words, data) or is_lattice(with_words(data)) and "lattice"

    found = each_in_time(damaged(LATTICES[::2], NUM_INVENTED, 3), check)
    assert found[True] > 500 and found["lattice"] > 500, "both sides of the border are visited"


def test_the_service_refuses_what_is_no_lattice_and_takes_what_is():
    def check(case):
        data = mended(case[1]) if case[1] and case[1][0] & 1 else case[1]
        try:
            return is_lattice(usable_lattice(data, WORDS)) and "lattice"
        except HTTPException as error:
            assert error.status_code == 422 and error.detail.startswith("lattice:")
            return "refused"

    found = each_in_time(damaged(LATTICES, NUM_LATTICE_BODIES, 4), check)
    assert min(found.values()) > 300, found


def test_random_pcm_is_samples_or_a_sentence():
    """Any bytes, any way of cutting them; by other arithmetic the same samples."""
    rng = np.random.default_rng(5)
    blob = rng.bytes(1 << 16)
    draws = zip(
        rng.integers(len(blob) - 700, size=NUM_PCM), rng.integers(700, size=NUM_PCM), rng.integers(1, 6, size=NUM_PCM),
        rng.integers(1, 30, size=NUM_PCM), strict=True,
    )  # fmt: skip

    def check(drawn):
        at, size, channels, chunk_ms = map(int, drawn)
        data, got, sentence = blob[at : at + size], [], ""
        if data.startswith(b"RIFF"):
            return "wav"
        try:
            got.extend(pcm_chunks(io.BytesIO(data), chunk_ms, 16_000, channels))
        except UserError as error:
            sentence = str(error)
        assert ("inside a sample" in sentence) == bool(size % (2 * channels))
        whole_SC = np.frombuffer(data[: size // (2 * channels) * 2 * channels], "<i2").reshape(-1, channels)
        samples_S = np.concatenate(got) if got else np.zeros(0, np.float32)
        assert samples_S.dtype == np.float32 and len(samples_S) == len(whole_SC)
        assert np.abs(samples_S - whole_SC.mean(1) / 32_768).max(initial=0) < 1e-6
        return bool(sentence)

    found = each_in_time(draws, check)
    assert found[True] > 500 and found[False] > 500


def test_answers_are_answers_or_refused():
    hypotheses = tuple(Hypothesis(text, -1.5, 0.5) for text in ("turn on", "lamp"))
    known = [
        Answer(1, 2, "turn on", hypotheses, "lamp", 0.9),
        Answer(3, 1, ""),
        Answer(2**31 - 1, 0, "é\u2581 \0"),
    ]
    values = [None, True, 0, -1.5, 1e400, "x", [], {}, [{}], [{"text": "a", "score": 1, "probability": True}]]
    records = [answer_to_json(answer) for answer in known]
    changed = [
        {**record, name: value} for record in records for name in [*record, "more"] for value in values
    ]
    originals = [json.dumps(record).encode() for record in [*changed, *40 * records]]

    def check(case):
        data = case[len(case[1]) % 2]  # a wrong value in half of them, broken text in the others
        try:
            found = answer_from_json(data)
        except UserError:
            return "refused"
        assert isinstance(found, Answer) and isinstance(found.text, str) and type(found.turn) is int
        assert all(isinstance(each, Hypothesis) and abs(each.score) < inf for each in found.n_best)
        assert answer_from_json(json.dumps(answer_to_json(found)).encode()) == found
        return "answer"

    found = each_in_time(damaged(originals, NUM_ANSWERS, 6, bits=range(3)), check)
    assert min(found["refused"], found["answer"]) > 100, found


PATHS = [
    "/v1/streams/a/turns/1/revisions/1",
    "/v1/streams/a/turns/1/revisions/1/adopt",
    "/health",
    "/v1/streams/b",
]
TYPES = [MEDIA_TYPE, f"{MEDIA_TYPE}; q=1", "application/json", ""]
POSSIBLE = {200, 204, 404, 405, 409, 413, 415, 422}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_requests_of_any_kind_get_an_answer_or_a_reason():
    """The application itself, without a server before it: what it raises would come out here."""
    app, rng = create_app(FirstPass()), np.random.default_rng(7)
    bodies = damaged(LATTICES, NUM_REQUESTS, 8)
    paths = damaged([path.encode() for path in PATHS], NUM_REQUESTS, 9)

    async def ask(method, path, query, kind, body):
        parts, said = [body[: len(body) // 2], body[len(body) // 2 :]], []

        async def receive():
            more = len(parts) > 1
            return {"type": "http.request", "body": parts.pop(0), "more_body": more}

        async def send(message):
            said.append(message)

        text = path.decode("latin-1")
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        scope = {"type": "http", "method": method, "path": text, "raw_path": path, "query_string": query,
                 "headers": headers, "scheme": "http", "http_version": "1.1", "server": ("a", 1), "client": ("b", 2),
                 "root_path": "", "asgi": {"version": "3.0"}}  # fmt: skip
        await app(scope, receive, send)
        return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:])

    async def ask_all():
        statuses = Counter()
        for (body, broken), (path, strange) in zip(bodies, paths, strict=True):
            whole, straight, kind, verb, query = rng.random(5)
            method = ("POST", "POST", "POST", "DELETE", "GET", "PUT")[int(6 * verb)]
            status, content = await asyncio.wait_for(
                ask(
                    method,
                    path if straight < 0.8 else strange,
                    (b"", b"final=true", b"final=\xff&&=")[int(3 * query)],
                    TYPES[int(4 * kind) if kind > 0.4 else 0],
                    body if whole < 0.3 else mended(broken) if whole < 0.6 else broken,
                ),
                60,
            )
            assert status in POSSIBLE
            assert status < 400 or json.loads(content)["reason"]
            statuses[status] += 1
        return statuses

    statuses = asyncio.run(ask_all())
    assert {200, 204, 404, 405, 409, 415, 422} <= set(statuses), statuses
