"""Whole files or none: write under a temporary name, then rename. And YAML, read as DVC reads it."""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`; a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, to_json(content))


def to_json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def copy_atomically(source: Path, path: Path, move: bool = False) -> None:
    """Put the file or folder `source` at `path`; with `move` it is renamed where the file system allows."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        if move:
            shutil.move(source, temporary)
        elif source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copyfile(source, temporary)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        remove_path(temporary)


def remove_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML 1.2 mapping, read as DVC reads it (so 3e-3 is a number). Raises UserError."""
    from ruamel.yaml import YAML, YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); run from the project's folder."
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        first_line = " ".join(str(error).split())
        raise UserError(f"{path}: is not valid YAML: {first_line}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold sections of keys, found {type(content).__name__}.")
    return content
