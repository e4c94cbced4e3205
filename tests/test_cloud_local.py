"""A device that may not use the cloud answers by itself and opens no socket."""

import socket
import subprocess
import sys

import pytest

from pipeline.cloud.local import LocalOnly
from tests.conftest import ROOT, stage_environment
from tests.serving import WORDS, lattice_bytes, said_by


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
