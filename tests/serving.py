"""A second pass that can be told from the first, lattices for it, and a service on a real socket while needed."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import uvicorn

from pipeline.cloud.service import create_app
from pipeline.cloud.wire import MEDIA_TYPE, Hypothesis, Ranked, Ranker, read_sent_lattice, revision_path
from pipeline.decoding.lattice import Arc, best_path, build, n_best
from pipeline.decoding.lattice_format import write_lattice

WORDS = ["turn", "on", "the", "lamp"]


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


def post(service, key, data, **changes):
    arguments = {"content": data, "headers": {"content-type": MEDIA_TYPE}, **changes}
    return service.post(revision_path(*key), **arguments)


def said_by(data):
    return heard(best_path(read_sent_lattice(data, WORDS)))


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
