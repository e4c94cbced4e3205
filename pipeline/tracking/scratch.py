"""Scratch folders `.scratch/<stage>-<fingerprint>/`: what a killed stage resumes from, one trainer at a time.

A checkpoint is trusted only if the fingerprint of parameters, inputs and code matches.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_yaml

SCRATCH = Path(".scratch")
LOCK_WAIT_S = 15.0  # a killed trainer needs a moment to go
_held: set[str] = set()


def fingerprint(stage: str) -> str:
    """Hex digits over the stage's parameters, the content of its dependencies (inputs, code), its command.

    All is read from `dvc.yaml`, so that DVC and the checkpoints never disagree about what a stage depends on.
    """
    params = read_yaml("params.yaml")
    described = read_yaml("dvc.yaml").get("stages", {}).get(stage)
    if described is None:
        raise UserError(f"dvc.yaml: has no stage {stage}; add it beside pipeline/stages/{stage}.py.")
    digest = hashlib.sha256(str(described["cmd"]).encode())
    for name in described.get("params", []):
        digest.update(json.dumps([name, params.get(name)], sort_keys=True).encode())
    for dependency in described.get("deps", []):
        path = Path(interpolate(dependency, params))
        for file in _files(path):
            digest.update(str(file).encode() + b"\0" + _content_hash(file))
    return digest.hexdigest()[:16]


def interpolate(text: str, params: dict[str, Any]) -> str:
    """DVC's `${section.key}` replaced by its value in params.yaml."""

    def value(match: re.Match) -> str:
        found: Any = params
        for key in match[1].strip().split("."):
            if not isinstance(found, dict) or key not in found:
                raise UserError(f"params.yaml: missing key {match[1]}, which dvc.yaml asks for.")
            found = found[key]
        return str(found)

    return re.sub(r"\$\{([^}]*)\}", value, text)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{path}: is missing; `dvc repro` makes it by running the stage before.")
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _content_hash(file: Path) -> bytes:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


@contextmanager
def stage_lock(stage: str) -> Iterator[None]:
    """Hold `.scratch/<stage>.lock` while the stage runs. Raises UserError naming the process that has it."""
    SCRATCH.mkdir(exist_ok=True)
    path = SCRATCH / f"{stage}.lock"
    key = str(path.resolve())
    if key in _held:
        raise UserError(f"{path}: this process ({os.getpid()}) already runs {stage}.")
    with open(path, "a+") as file:
        _acquire(file, path, stage)
        _held.add(key)
        try:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
        finally:
            _held.discard(key)


def _acquire(file: Any, path: Path, stage: str) -> None:
    """A record lock (released with the process, not inherited by forked workers, unlike `flock`)."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                pid = path.read_text().strip() or "unknown"
                raise UserError(
                    f"{path}: process {pid} is running {stage} in this folder; wait for it or end it first."
                ) from None
            time.sleep(0.2)


def open_scratch(stage: str) -> Path:
    """The scratch folder of this fingerprint, made if need be. Call under `stage_lock`."""
    folder = SCRATCH / f"{stage}-{fingerprint(stage)}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def other_scratches(stage: str, folder: Path) -> list[Path]:
    """Folders that the stage left behind under other fingerprints."""
    pattern = re.compile(rf"{re.escape(stage)}-[0-9a-f]{{16}}")
    return [
        path
        for path in SCRATCH.iterdir()
        if path != folder and pattern.fullmatch(path.name) and path.is_dir()
    ]


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
