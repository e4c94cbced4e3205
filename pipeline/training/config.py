"""What a training stage can set about its trainer; torch-free, so that params.yaml is checked quickly."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainerConfig:
    """AdamW, one cycle. `batch_seconds`: audio per batch, padding included; `warmup_share`: of all steps."""

    epochs: int = 16
    batch_seconds: float = 90.0
    peak_lr: float = 3e-3
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    gradient_clip: float = 5.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the processor has it
