"""A service on a real socket for as long as a test needs it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from pipeline.cloud.service import create_app
from pipeline.cloud.wire import Ranker


@contextmanager
def served(ranker: Ranker) -> Iterator[str]:
    """The address of a service that ranks with `ranker`."""
    server = uvicorn.Server(uvicorn.Config(create_app(ranker), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
