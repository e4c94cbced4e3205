"""The service: HTTP in, answers out. `wire` has the addresses, `sessions` the rules, `reranker` the work.

Sessions are only touched in the event loop, ranking runs in threads beside it. What a caller can get wrong ends as a
status of 400 to 499 with a reason; more work than the service can hold ends as 503, which clients may try again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from pipeline.cloud import sessions
from pipeline.cloud.limits import check_size
from pipeline.cloud.sessions import Session, Stored, Verdict
from pipeline.cloud.wire import (
    MAX_BODY_BYTES,
    MAX_NUMBER,
    MEDIA_TYPE,
    STREAM_ID,
    Answer,
    Ranked,
    Ranker,
    answer_to_json,
    read_sent_lattice,
)
from pipeline.decoding.lattice import Lattice
from pipeline.errors import UserError

MAX_STREAMS = 10_000  # beyond it the one that was silent for longest is forgotten
NUM_WORKERS = 2
MAX_WAITING = 64  # lattices that wait for a worker

StreamId = Annotated[str, Path(pattern=f"^{STREAM_ID}$")]
Number = Annotated[int, Path(ge=0, le=MAX_NUMBER)]
REVISION = "/v1/streams/{stream_id}/turns/{turn}/revisions/{revision}"


class Streams:
    """The sessions of all streams, as many as the service remembers."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, stream_id: str) -> Session:
        return self._sessions.get(stream_id, Session())

    def put(self, stream_id: str, session: Session) -> None:
        self._sessions[stream_id] = session
        self._sessions.move_to_end(stream_id)
        if len(self._sessions) > MAX_STREAMS:
            self._sessions.popitem(last=False)

    def forget(self, stream_id: str) -> None:
        self._sessions.pop(stream_id, None)


def create_app(ranker: Ranker, facts: Mapping[str, Any] | None = None) -> FastAPI:
    """The service of one second pass; `facts` are shown by /health."""
    app = FastAPI(title="sotto", docs_url=None, redoc_url=None, openapi_url=None)
    streams, words = Streams(), ranker.words
    limiter: list[CapacityLimiter] = []  # one per event loop, so it is made when the first request comes

    async def in_thread(function, *arguments):
        if not limiter:
            limiter.append(CapacityLimiter(NUM_WORKERS))
        if limiter[0].available_tokens < 1 and limiter[0].statistics().tasks_waiting >= MAX_WAITING:
            raise HTTPException(503, "too many lattices are waiting; try again")
        return await to_thread.run_sync(function, *arguments, limiter=limiter[0])

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"reason": str(error.detail)}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def impossible(request: Request, error: RequestValidationError) -> JSONResponse:
        named = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return JSONResponse({"reason": named}, 422)

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok", "streams": len(streams), **(facts or {})}

    @app.post(REVISION)
    async def submit(
        request: Request, stream_id: StreamId, turn: Number, revision: Number, final: bool = False
    ) -> JSONResponse:
        data, key = await read_body(request), (turn, revision)
        digest = hashlib.sha256(data).digest()
        refuse_if_not_new(streams.get(stream_id), key, digest, final)
        stored = streams.get(stream_id).answers.get(key)
        if stored is None:
            lattice = await in_thread(usable_lattice, data, words)
            streams.put(stream_id, sessions.announce(streams.get(stream_id), key))
            ranked = await in_thread(ranker.rank, lattice)
            # Meanwhile others may have come: a twin of this one, a revision, the turn's end.
            refuse_if_not_new(streams.get(stream_id), key, digest, final)
            stored = streams.get(stream_id).answers.get(key) or Stored(
                digest, answer_of(ranked, turn, revision)
            )
        if final:
            stored = Stored(digest, stored.answer, adopted=True)
        streams.put(stream_id, sessions.remember(streams.get(stream_id), key, stored))
        return JSONResponse(answer_to_json(stored.answer))

    @app.post(REVISION + "/adopt", status_code=204)
    async def adopt(stream_id: StreamId, turn: Number, revision: Number) -> Response:
        session, found = sessions.adopt(streams.get(stream_id), (turn, revision))
        if not found:
            raise HTTPException(404, "there is no answer to this revision; send its lattice with final=true")
        streams.put(stream_id, session)
        return Response(status_code=204)

    @app.post(REVISION + "/revise", status_code=204)
    async def revise(stream_id: StreamId, turn: Number, revision: Number) -> Response:
        streams.put(stream_id, sessions.revise(streams.get(stream_id), (turn, revision)))
        return Response(status_code=204)

    @app.delete("/v1/streams/{stream_id}", status_code=204)
    async def reset(stream_id: StreamId) -> Response:
        streams.forget(stream_id)
        return Response(status_code=204)

    return app


async def read_body(request: Request) -> bytes:
    """A lattice's bytes, no more of them than are allowed."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != MEDIA_TYPE:
        raise HTTPException(415, f"the content type must be {MEDIA_TYPE}")
    too_large = HTTPException(413, f"a lattice may have at most {MAX_BODY_BYTES} bytes")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
        raise too_large
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > MAX_BODY_BYTES:
                raise too_large
    except ClientDisconnect as error:
        raise HTTPException(400, "the request broke off") from error
    return bytes(data)


def usable_lattice(data: bytes, words: Sequence[str]) -> Lattice:
    """Raises HTTPException 422 with the reason for bytes that are no lattice, and for one that is too large."""
    try:
        lattice = read_sent_lattice(data, words)
        check_size(lattice)
    except UserError as error:
        raise HTTPException(422, str(error)) from error
    return lattice


def answer_of(ranked: Ranked, turn: int, revision: int) -> Answer:
    text = ranked.n_best[0].text
    return Answer(turn, revision, text, ranked.n_best, ranked.intent, ranked.intent_probability)


def refuse_if_not_new(session: Session, key: tuple[int, int], digest: bytes, final: bool) -> None:
    """HTTPException 409 for what comes too late or contradicts what came before."""
    verdict = sessions.judge(session, key, digest, final)
    if verdict is Verdict.LATE:
        raise HTTPException(409, f"late: {session.newest} has been heard of, and {key} is not newer")
    if verdict is Verdict.CONTRADICTORY:
        raise HTTPException(409, "contradictory: another lattice had these numbers, or the turn has ended")
