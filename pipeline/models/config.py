"""Sizes of a transducer, torch-free so that params.yaml is checked quickly; `as_dict` and `of` are a round trip."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import UserError


@dataclass(frozen=True)
class EncoderConfig:
    """`width`: of every layer and of the output. LSTM: `channels` of the convolutions over each stack of
    features (none: no convolutions), `input_width` narrows what comes of it.

    What an encoder does not know stays None; Emformer takes its own defaults for None.
    """

    name: Literal["lstm", "emformer"]
    num_layers: int
    width: int
    input_width: int | None = None
    channels: tuple[int, ...] | None = None
    dropout: float | None = None
    num_heads: int | None = None
    segment_frames: int | None = None  # of 80 ms
    left_context_frames: int | None = None
    right_context_frames: int | None = None


@dataclass(frozen=True)
class PredictorConfig:
    """`width`: of the token embedding and of the mixing layer."""

    width: int


@dataclass(frozen=True)
class TransducerConfig:
    """`num_mel_bins`, `vocab_size` and `num_phones` (none: no phone head) come from the data; in params.yaml they stay
    out."""

    encoder: EncoderConfig
    predictor: PredictorConfig
    joiner_width: int
    num_mel_bins: int | None = None
    vocab_size: int | None = None
    num_phones: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(settings: "Mapping[str, Any] | TransducerConfig") -> "TransducerConfig":
        """From `as_dict`. Raises UserError for unknown or missing keys."""
        if isinstance(settings, TransducerConfig):
            return settings
        try:
            parts = {
                **settings,
                "encoder": EncoderConfig(**_with_tuples(settings["encoder"])),
                "predictor": PredictorConfig(**settings["predictor"]),
            }
            return TransducerConfig(**parts)
        except (TypeError, KeyError) as error:
            raise UserError(f"model settings: {error}; they must be those of a TransducerConfig") from error


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
