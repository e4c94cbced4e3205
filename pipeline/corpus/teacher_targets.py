"""What a teacher said about utterances: pseudo-labels, lattice scores and top-k targets, in shards of safetensors.

A shard is two files: `NNNNNN.jsonl` (one utterance a line: id, labels, confidence, frames T) and
`NNNNNN.safetensors`, where each array holds all utterances of the shard one behind the other.
Cost on disk: about 80 bytes a frame at K = 8 (Parthasarathi & Strom 2019 store high-valued logits alone).
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import write_atomically, write_json

SELECTION = "selection.json"
FRAME_ARRAYS = ("path", "topk_ids", "topk_log_probs")


@dataclass(frozen=True)
class TeacherTargets:
    """A batch of targets. `path_BT`: labels emitted before each frame on the teacher's best path."""

    log_blank_BTU: Tensor
    log_label_BTU: Tensor
    path_BT: Tensor
    topk_ids_BTK: Tensor
    topk_log_probs_BTK: Tensor

    def to(self, device: torch.device | str, **kwargs) -> "TeacherTargets":
        fields = {f.name: getattr(self, f.name).to(device, **kwargs) for f in dataclasses.fields(self)}
        return TeacherTargets(**fields)

    def at_frames(self, frames_BT: Tensor) -> "TeacherTargets":
        """The targets of a telling whose frame t is frame `frames_BT[b, t]` of the recording.

        A frame told twice has its scores twice, one that is skipped none: what is said of a node (t, u) holds for
        each, for it asks what comes after u labels, whenever those were emitted.
        """
        row_B1 = torch.arange(len(frames_BT), device=frames_BT.device)[:, None]
        fields = {f.name: getattr(self, f.name)[row_B1, frames_BT] for f in dataclasses.fields(self)}
        return TeacherTargets(**fields)


@dataclass(frozen=True)
class Target:
    """One utterance: `lattice_2TU` log-probabilities of blank and next label (float16), the path and its top-k."""

    id: str
    labels: list[int]
    confidence: float  # mean log-probability per frame of the teacher's best path for these labels
    is_pseudo: bool
    lattice_2TU: np.ndarray
    path_T: np.ndarray
    topk_ids_TK: np.ndarray
    topk_log_probs_TK: np.ndarray


def write_shard(folder: Path, index: int, targets: Sequence[Target]) -> None:
    """Both files, the table last: a shard without its table is one that was never finished."""
    arrays = {
        "lattice": np.concatenate([t.lattice_2TU.astype(np.float16).ravel() for t in targets]),
        "path": np.concatenate([t.path_T.astype(np.uint8) for t in targets]),
        "topk_ids": np.concatenate([t.topk_ids_TK.astype(np.uint16) for t in targets]),
        "topk_log_probs": np.concatenate([t.topk_log_probs_TK.astype(np.float16) for t in targets]),
    }
    rows = [
        {"id": t.id, "labels": t.labels, "confidence": t.confidence, "is_pseudo": t.is_pseudo,
         "num_frames": len(t.path_T)}
        for t in targets
    ]  # fmt: skip
    write_atomically(folder / f"{index:06d}.safetensors", save(arrays))
    write_atomically(folder / f"{index:06d}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def write_selection(folder: Path, min_confidence_quantile: float) -> dict[str, float]:
    """Choose the pseudo-labels worth learning from: those above that quantile of confidence. Returns the counts."""
    rows = [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]
    pseudo = [row["confidence"] for row in rows if row["is_pseudo"]]
    lowest = float(np.quantile(pseudo, min_confidence_quantile)) if pseudo else 0.0
    write_json(folder / SELECTION, {"min_confidence": lowest})
    kept = sum(row["is_pseudo"] and row["confidence"] >= lowest and bool(row["labels"]) for row in rows)
    return {"utterances/labelled": len(rows) - len(pseudo), "utterances/pseudo": len(pseudo),
            "utterances/pseudo_kept": kept, "min_confidence": lowest}  # fmt: skip


class TargetStore:
    """All shards of a folder in memory. Call it with ids and padded sizes to get a batch of targets."""

    def __init__(self, folder: str | Path):
        """Raises UserError if there is no shard or one is damaged."""
        self._targets: dict[str, Target] = {}
        paths = sorted(Path(folder).glob("*.jsonl"))
        if not paths:
            raise UserError(f"{folder}: holds no teacher targets; run the stage label first")
        for path in paths:
            try:
                self._targets.update((target.id, target) for target in _read_shard(path))
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                raise UserError(f"{path}: damaged ({error}); run `dvc repro -f label`") from error
        self.min_confidence = float(json.loads((Path(folder) / SELECTION).read_text())["min_confidence"])

    def __getitem__(self, id: str) -> Target:
        return self._targets[id]

    def pseudo_labels(self) -> dict[str, list[int]]:
        """Labels of the unlabelled utterances that the teacher was sure of (`write_selection`) and heard words in."""
        return {
            t.id: t.labels
            for t in self._targets.values()
            if t.is_pseudo and t.labels and t.confidence >= self.min_confidence
        }

    def __call__(self, ids: Iterable[str], B: int, T: int, U: int) -> TeacherTargets:
        """Targets padded to (B, T, U); padding is 0 and masked by lengths everywhere."""
        targets = [self._targets[id] for id in ids]
        K = targets[0].topk_ids_TK.shape[1]
        lattice_2BTU = np.zeros((2, B, T, U), np.float16)
        path_BT = np.zeros((B, T), np.int64)
        ids_BTK = np.zeros((B, T, K), np.int64)
        log_probs_BTK = np.zeros((B, T, K), np.float16)
        for b, target in enumerate(targets):
            frames, nodes = target.lattice_2TU.shape[1:]
            lattice_2BTU[:, b, :frames, :nodes] = target.lattice_2TU
            path_BT[b, :frames] = target.path_T
            ids_BTK[b, :frames] = target.topk_ids_TK
            log_probs_BTK[b, :frames] = target.topk_log_probs_TK
        log_blank_BTU, log_label_BTU = torch.from_numpy(lattice_2BTU).float()
        tensors = (torch.from_numpy(array) for array in (path_BT, ids_BTK))
        return TeacherTargets(log_blank_BTU, log_label_BTU, *tensors, torch.from_numpy(log_probs_BTK).float())


def _read_shard(path: Path) -> Iterable[Target]:
    arrays = load_file(path.with_suffix(".safetensors"))
    node, frame = 0, 0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        frames, nodes = row.pop("num_frames"), len(row["labels"]) + 1
        lattice = arrays["lattice"][node : node + 2 * frames * nodes].reshape(2, frames, nodes)
        path_T, ids_TK, log_probs_TK = (arrays[name][frame : frame + frames] for name in FRAME_ARRAYS)
        yield Target(
            **row, lattice_2TU=lattice, path_T=path_T, topk_ids_TK=ids_TK, topk_log_probs_TK=log_probs_TK
        )
        node, frame = node + 2 * frames * nodes, frame + frames
    if node != arrays["lattice"].size or frame != arrays["path"].size:
        raise ValueError("the arrays are longer than the table says")
