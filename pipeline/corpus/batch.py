"""One training batch: padded tensors and the cuts that they came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lhotse.cut import MonoCut
from torch import Tensor

if TYPE_CHECKING:
    from pipeline.corpus.teacher_targets import TeacherTargets


@dataclass(frozen=True)
class Batch:
    """`features_BNF` float32, padded with digital silence; `tokens_BU` int64, padded with 0; lengths int64.

    Nothing is said for the recogniser before `start_frames_B` (80 ms frames): the wake word ends there.
    `phones_BM`: the phone of each quarter frame from there on, -1 where it is unknown.
    """

    features_BNF: Tensor
    feature_lengths_B: Tensor
    start_frames_B: Tensor
    tokens_BU: Tensor
    token_lengths_B: Tensor
    phones_BM: Tensor
    utterances: list[MonoCut]
    targets: TeacherTargets | None = None

    def to(self, device: torch.device | str, **kwargs) -> Batch:
        """The batch on `device`; Lightning calls this to move a batch."""
        moved = {
            field.name: getattr(self, field.name).to(device, **kwargs)
            for field in dataclasses.fields(self)
            if field.name != "utterances" and getattr(self, field.name) is not None
        }
        return dataclasses.replace(self, **moved)
