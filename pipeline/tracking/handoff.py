"""What a stage leaves for the next in `data/<stage>/`: `model.safetensors`, `card.json`, `metrics.json`, …"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.files import copy_atomically, remove_path, to_json, write_atomically

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Handoff:
    """A stage's folder, checked. Tensors are read when asked for (on the CPU)."""

    path: Path
    card: dict[str, Any]
    metrics: dict[str, float]

    @cached_property
    def tensors(self) -> "dict[str, Tensor]":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self.path / "model.safetensors"
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            stage = self.path.name
            raise UserError(
                f"{file}: cannot be read ({error}); make it again with `dvc repro -f {stage}`."
            ) from error


def load_handoff(folder: str | Path) -> Handoff:
    """The hand-off in `folder`. Raises UserError if a file is absent or broken; `.tensors` does so too."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: does not exist; run `dvc repro {folder.name}` first.")
    return Handoff(folder, _read_object(folder / "card.json"), _read_object(folder / "metrics.json"))


def _read_object(file: Path) -> dict[str, Any]:
    stage = file.parent.name
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: is missing; run `dvc repro {stage}` first.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{file}: is no valid JSON ({error}); make it again with `dvc repro -f {stage}`."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold one JSON object; make it again with `dvc repro -f {stage}`.")
    return content


def write_handoff(
    folder: Path,
    tensors: "Mapping[str, Tensor] | None",
    card: Mapping[str, Any],
    metrics: Mapping[str, float],
    files: Mapping[str, str | bytes | Path],
    scratch: Path,
) -> None:
    """Write every file under a temporary name and rename it. What lies in `scratch` is moved."""
    _check_metrics(metrics)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.tmp"):
        remove_path(leftover)
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            copy_atomically(content, target, move=scratch.resolve() in content.resolve().parents)
        else:
            write_atomically(target, content)
    if tensors is not None:
        from safetensors.torch import save

        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_atomically(folder / "model.safetensors", save(contiguous))
    write_atomically(folder / "card.json", to_json(dict(card)))
    write_atomically(folder / "metrics.json", to_json({key: float(value) for key, value in metrics.items()}))


def _check_metrics(metrics: Mapping[str, float]) -> None:
    for key in metrics:
        if not re.fullmatch(r"[\w./ -]+", key):
            raise ValueError(f"metric {key!r}: letters, digits and _ . / - only, so that MLflow takes it")
