"""What the stage language_model can set; torch-free, so that params.yaml is checked quickly."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LanguageModelConfig:
    """An LSTM over pieces. `vocab_size` comes from the tokenizer; in params.yaml it stays out."""

    embedding_width: int
    width: int
    num_layers: int
    dropout: float
    vocab_size: int | None = None


@dataclass(frozen=True)
class LanguageTrainerConfig:
    """AdamW, one cycle, as for the recogniser. `batch_sentences`: sentences of about the same length in a step."""

    epochs: int
    batch_sentences: int
    peak_lr: float
    warmup_share: float
    weight_decay: float
    gradient_clip: float
    precision: Literal["auto", "bf16", "fp32"]
