"""The device's side: sends lattices while the speaker may still go on, and falls back to the device's own best path.

    client = CloudClient("http://127.0.0.1:8765", words=known_words(pieces))
    client.submit("kitchen", 1, 1, lattice_bytes)           # returns at once, as every call does
    answer = client.adopt("kitchen", 1, 1).result()         # within `deadline_s`, from the cloud or from the device

It serves as the engine's downstream: `submit` on START and before `adopt` on RUN, `adopt`, `cancel`. One background
thread does all the talking. `adopt` always comes to an answer: what the cloud says in time, else the best path.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence, Sized
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

from pipeline.cloud.wire import (
    MAX_ANSWER_BYTES,
    MEDIA_TYPE,
    Answer,
    answer_from_json,
    device_answer,
    read_sent_lattice,
    revision_path,
)
from pipeline.errors import UserError

MAX_OPEN = 256  # lattices that wait to be adopted or cancelled; beyond it the oldest is cancelled

Key = tuple[str, int, int]  # stream, turn, revision


@dataclass(frozen=True)
class ClientConfig:
    """`timeout_s` of one attempt; `deadline_s`: from `adopt` to the fall-back; `pause_s` before the second attempt."""

    timeout_s: float = 1.0
    deadline_s: float = 1.5
    attempts: int = 3
    pause_s: float = 0.05  # doubled before each further attempt


@dataclass
class Traffic:
    """What went over the wire, HTTP's own lines included, and how it went. TCP and TLS come on top."""

    requests: int = 0
    sent_bytes: int = 0
    lattice_bytes: int = 0
    received_bytes: int = 0
    failures: int = 0
    fallbacks: int = 0


class _Reply(NamedTuple):
    status: int
    content: bytes


@dataclass
class _Open:
    """A lattice on its way: the task brings an answer, or None."""

    lattice_bytes: bytes
    task: "asyncio.Task[Answer | None]" = field(repr=False)


class CloudClient:
    """Thread-safe. `on_answer` is told every adopted answer with its stream, from the background thread."""

    def __init__(
        self,
        url: str,
        words: Sequence[str] = (),
        config: ClientConfig = ClientConfig(),
        on_answer: Callable[[str, Answer], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ):
        self.traffic = Traffic()
        self._words, self._config, self._on_answer = words, config, on_answer
        self._open: dict[Key, _Open] = {}
        self._background: set[asyncio.Task] = set()
        try:  # no proxies and no credentials from the environment: only what the user named is called
            self._http = httpx.AsyncClient(
                base_url=url,
                timeout=config.timeout_s,
                transport=transport,
                trust_env=False,
                headers={"accept-encoding": "identity", "user-agent": "sotto"},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise UserError(f"{url}: is no address of a service ({error}); use http://host:port") from error
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise UserError(f"{url}: is no address of a service; use http://host:port")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloud", daemon=True)
        self._thread.start()

    def submit(self, stream_id: str, turn: int, revision: int, lattice_bytes: bytes) -> None:
        """Begin to ask. The same numbers again are the same question. Raises ValueError for impossible ids."""
        revision_path(stream_id, turn, revision)
        self._loop.call_soon_threadsafe(self._begin, (stream_id, turn, revision), lattice_bytes)

    def cancel(self, stream_id: str, turn: int, revision: int) -> None:
        """The words were revised: stop asking, and let the service forget."""
        self._loop.call_soon_threadsafe(self._cancel, (stream_id, turn, revision))

    def adopt(self, stream_id: str, turn: int, revision: int) -> "Future[Answer]":
        """The turn ended with these words. The future fails only for what is not open: with KeyError."""
        return asyncio.run_coroutine_threadsafe(self._adopt((stream_id, turn, revision)), self._loop)

    def reset(self, stream_id: str) -> None:
        """Forget the stream, here and there."""
        self._loop.call_soon_threadsafe(self._reset, stream_id)

    def close(self) -> None:
        """Stop the thread; notices still on their way have `timeout_s` to leave."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # All below runs in the background thread.

    def _begin(self, key: Key, lattice_bytes: bytes) -> None:
        if key in self._open:
            return
        if len(self._open) >= MAX_OPEN:
            self._cancel(next(iter(self._open)))
        self._open[key] = _Open(lattice_bytes, self._spawn(self._ask(key, lattice_bytes, final=False)))

    def _cancel(self, key: Key) -> None:
        entry = self._open.pop(key, None)
        if entry is not None:
            entry.task.cancel()
            self._spawn(self._send("POST", revision_path(*key, "revise")))

    def _reset(self, stream_id: str) -> None:
        for key in [key for key in self._open if key[0] == stream_id]:
            self._open.pop(key).task.cancel()
        self._spawn(self._send("DELETE", f"/v1/streams/{stream_id}"))

    async def _adopt(self, key: Key) -> Answer:
        entry = self._open.pop(key)
        try:
            answer = await asyncio.wait_for(self._final_answer(key, entry), self._config.deadline_s)
        except TimeoutError:
            answer = None
        if answer is None:
            self.traffic.fallbacks += 1
            answer = device_answer(read_sent_lattice(entry.lattice_bytes, self._words), *key[1:])
        if self._on_answer:
            self._on_answer(key[0], answer)
        return answer

    async def _final_answer(self, key: Key, entry: _Open) -> Answer | None:
        """What was asked while the speaker was perhaps still speaking; else it is asked anew, as a final."""
        answer = await entry.task
        if answer is None:
            return await self._ask(key, entry.lattice_bytes, final=True)
        self._spawn(self._send("POST", revision_path(*key, "adopt")))
        return answer

    async def _ask(self, key: Key, lattice_bytes: bytes, final: bool) -> Answer | None:
        path = revision_path(*key) + ("?final=true" if final else "")
        reply = await self._send("POST", path, lattice_bytes)
        if reply is None or reply.status != 200:
            return None
        try:
            answer = answer_from_json(reply.content)
        except UserError:
            return None
        return answer if (answer.turn, answer.revision) == key[1:] else None

    async def _send(self, method: str, path: str, content: bytes = b"") -> _Reply | None:
        """The reply, after as many attempts as it takes; None if none came through."""
        headers = {"content-type": MEDIA_TYPE} if content else {}
        for attempt in range(self._config.attempts):
            if attempt:
                await asyncio.sleep(self._config.pause_s * 2 ** (attempt - 1))
            request = self._http.build_request(method, path, content=content or None, headers=headers)
            self.traffic.requests += 1
            self.traffic.sent_bytes += _size_of(request.headers, f"{method} {path}", content)
            self.traffic.lattice_bytes += len(content)
            try:
                reply = await asyncio.wait_for(self._exchange(request), self._config.timeout_s)
            except (httpx.HTTPError, TimeoutError, UserError):
                self.traffic.failures += 1
                continue
            if reply.status < 500 and reply.status != 429:
                return reply
            self.traffic.failures += 1
        return None

    async def _exchange(self, request: httpx.Request) -> _Reply:
        response = await self._http.send(request, stream=True)
        try:
            content = bytearray()
            if response.headers.get("content-encoding", "identity") != "identity":
                raise UserError("the service's answer is compressed, which was not asked for")
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_ANSWER_BYTES:
                    raise UserError("the service's answer is too long")
        finally:
            await response.aclose()
        self.traffic.received_bytes += _size_of(response.headers, "200 OK", content)
        return _Reply(response.status_code, bytes(content))

    def _spawn(self, work: Coroutine) -> asyncio.Task:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _shut_down(self) -> None:
        for entry in self._open.values():
            entry.task.cancel()
        self._open.clear()
        if self._background:
            _, late = await asyncio.wait(self._background, timeout=self._config.timeout_s)
            for task in late:
                task.cancel()
        await self._http.aclose()


def _size_of(headers: httpx.Headers, first_line: str, content: Sized) -> int:
    lines = sum(len(name) + len(value) + 4 for name, value in headers.raw)
    return len(first_line) + len(" HTTP/1.1\r\n") + lines + 2 + len(content)
