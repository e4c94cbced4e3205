"""The device without a cloud: the same interface as `client.CloudClient`, no socket, no thread, no import of either."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pipeline.cloud.wire import Answer, device_answer, read_sent_lattice

Key = tuple[str, int, int]  # stream, turn, revision


class LocalOnly:
    """Answers every adopted lattice with its own best path, at once."""

    def __init__(self, words: Sequence[str] = (), on_answer: Callable[[str, Answer], None] | None = None):
        self._words, self._on_answer = words, on_answer
        self._open: dict[Key, bytes] = {}

    def submit(self, stream_id: str, turn: int, revision: int, lattice_bytes: bytes) -> None:
        self._open[stream_id, turn, revision] = lattice_bytes

    def cancel(self, stream_id: str, turn: int, revision: int) -> None:
        self._open.pop((stream_id, turn, revision), None)

    def adopt(self, stream_id: str, turn: int, revision: int) -> Future[Answer]:
        """A future that is done. Raises KeyError for what was not submitted, or is adopted or cancelled already."""
        lattice = read_sent_lattice(self._open.pop((stream_id, turn, revision)), self._words)
        done: Future[Answer] = Future()
        done.set_result(device_answer(lattice, turn, revision))
        if self._on_answer:
            self._on_answer(stream_id, done.result())
        return done

    def reset(self, stream_id: str) -> None:
        self._open = {key: data for key, data in self._open.items() if key[0] != stream_id}

    def close(self) -> None:
        self._open.clear()
