"""A process that ends with the one that started it, so that a killed run leaves nothing behind."""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL_S = 0.5
DVC_LOCK = Path(".dvc/tmp/rwlock")  # DVC enters its process and files here before it runs a stage


def die_with_parent() -> None:
    """Kill this process as soon as its parent is gone: `ProcessPoolExecutor(initializer=die_with_parent)`."""
    parent = os.getppid()
    end_with_parent()
    threading.Thread(target=_watch, args=(lambda: os.getppid() == parent,), daemon=True).start()


def die_with_driver() -> None:
    """Kill this process when the `dvc repro` above it is gone, even if a shell stands between them.

    Does nothing outside DVC (it sets DVC_STAGE for its commands): one started by hand lives.
    """
    if "DVC_STAGE" not in os.environ:
        return
    import psutil

    parent = os.getppid()
    driver = _first_that_is_no_shell(psutil.Process().parents())
    drivers = _running_dvc()
    # Killed while this process was importing: init, or whatever adopts orphans, stands where DVC stood.
    late = bool(drivers) and (driver is None or driver.pid not in drivers)
    end_with_parent()

    def alive() -> bool:
        if late or os.getppid() != parent:
            return False
        try:
            return driver is None or (driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    threading.Thread(target=_watch, args=(alive,), daemon=True).start()


def _first_that_is_no_shell(ancestors: list):  # type: ignore[no-untyped-def]
    shells = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
    return next((process for process in ancestors if process.name().lstrip("-") not in shells), None)


def _running_dvc() -> set[int]:
    """The processes that say in DVC's lock file that they run here; none if it cannot be read."""
    try:
        lock = json.loads(DVC_LOCK.read_text(encoding="utf-8"))
        readers = [entry for entries in lock["read"].values() for entry in entries]
        return {entry["pid"] for entry in [*readers, *lock["write"].values()]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def end_with_parent() -> None:
    """Linux: SIGKILL from the kernel the moment the parent dies; elsewhere only a watching thread sees it.

    For a program that is not ours: `subprocess.run(…, preexec_fn=end_with_parent)`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(alive) -> None:  # type: ignore[no-untyped-def]
    while alive():
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)
