"""The cloud as the engine's downstream (`runtime/downstream.py`): what `sotto listen --cloud` puts behind a stream."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.cloud.client import ClientConfig, CloudClient
from pipeline.cloud.wire import answer_to_json


class CloudDownstream:
    """Submits and cancels at once; `adopt` waits for the answer, at most the client's deadline, and gives it as JSON.

    While it waits no audio is taken: what a microphone records meanwhile stands in the operating system's pipe.
    """

    def __init__(self, client: CloudClient):
        self.client = client

    def submit(self, stream_id: str, turn: int, revision: int, lattice_bytes: bytes) -> None:
        self.client.submit(stream_id, turn, revision, lattice_bytes)

    def cancel(self, stream_id: str, turn: int, revision: int) -> None:
        self.client.cancel(stream_id, turn, revision)

    def adopt(self, stream_id: str, turn: int, revision: int) -> dict[str, Any]:
        return answer_to_json(self.client.adopt(stream_id, turn, revision).result())


@contextmanager
def cloud_downstream(
    url: str, words: Sequence[str] = (), config: ClientConfig = ClientConfig()
) -> Iterator[CloudDownstream]:
    """A downstream for as long as a stream lasts. Raises UserError for an impossible address."""
    client = CloudClient(url, words, config)
    try:
        yield CloudDownstream(client)
    finally:
        client.close()
