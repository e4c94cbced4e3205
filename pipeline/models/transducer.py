"""The streaming RNN-T: encoder, two-token predictor, joiner, and heads that only training uses (CTC, phones).

Blank is token 0. Search sees `encode` / `step`, `predict_context` and `join`; training sees `forward`.
Source: Graves 2012 (arXiv 1211.3711); one symbol per frame, see losses/rnnt.py.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.config import EncoderConfig, TransducerConfig
from pipeline.models.joiner import Joiner
from pipeline.models.lstm_encoder import LSTMEncoder
from pipeline.models.predictor import Predictor
from pipeline.models.streaming import drop_before

PHONES_PER_FRAME = 4  # of 20 ms
# Prefixes of what search never uses: neither compressed nor packed.
TRAINING_ONLY = ("ctc_head.", "phone_head.")


def without_training_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What search uses of a model's tensors."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(TRAINING_ONLY)}


class Outputs(NamedTuple):
    """What losses need: the joiner's projected inputs, its output layer, the logits of CTC and phones (M = 4 T)."""

    encoded_BTJ: Tensor
    predicted_BUJ: Tensor
    output_weight_VJ: Tensor
    output_bias_V: Tensor
    ctc_logits_BTV: Tensor
    phone_logits_BMP: Tensor | None
    frame_lengths_B: Tensor


class Transducer(nn.Module):
    def __init__(self, config: TransducerConfig):
        super().__init__()
        if config.vocab_size is None or config.num_mel_bins is None:
            raise UserError("model settings: vocab_size and num_mel_bins must be given to build a transducer")
        self.config = config
        self.register_buffer("feature_mean_F", torch.zeros(config.num_mel_bins))
        self.register_buffer("feature_scale_F", torch.ones(config.num_mel_bins))
        self.encoder = build_encoder(config.num_mel_bins, config.encoder)
        self.predictor = Predictor(config.vocab_size, config.predictor)
        width = self.encoder.output_width
        self.joiner = Joiner(width, self.predictor.output_width, config.joiner_width, config.vocab_size)
        self.ctc_head: nn.Linear | None = nn.Linear(width, config.vocab_size)
        self.phone_head: nn.Linear | None = None
        if config.num_phones:
            self.phone_head = nn.Linear(width, PHONES_PER_FRAME * config.num_phones)

    def set_statistics(self, mean_F: Tensor, std_F: Tensor) -> None:
        """Global feature statistics; they travel with the weights, so that a file needs nothing beside it."""
        self.feature_mean_F.copy_(mean_F)
        self.feature_scale_F.copy_(1.0 / std_F.clamp_min(1e-3))

    def forward(
        self, features_BNF: Tensor, feature_lengths_B: Tensor, tokens_BU: Tensor, start_frames_B: Tensor
    ) -> Outputs:
        encoded_BTD, frame_lengths_B = self.encode(features_BNF, feature_lengths_B, start_frames_B)
        output = self.joiner.output
        return Outputs(
            self.joiner.encoder_projection(encoded_BTD),
            self.joiner.predictor_projection(self.predict(tokens_BU)),
            output.weight,
            output.bias,
            self.ctc_head(encoded_BTD),
            self._phone_logits(encoded_BTD),
            frame_lengths_B,
        )

    def _phone_logits(self, encoded_BTD: Tensor) -> Tensor | None:
        if self.phone_head is None:
            return None
        batch, num_frames, _ = encoded_BTD.shape
        return self.phone_head(encoded_BTD).view(batch, num_frames * PHONES_PER_FRAME, self.config.num_phones)

    def encode(
        self, features_BNF: Tensor, feature_lengths_B: Tensor, start_frames_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whole utterances: (encoded_BTD, frame_lengths_B) from `start_frames_B` (see `drop_before`) on."""
        encoded_BTD, frame_lengths_B = self.encoder(self._normalise(features_BNF), feature_lengths_B)
        return drop_before(encoded_BTD, frame_lengths_B, start_frames_B)

    def initial_state(self, batch: int) -> Any:
        return self.encoder.initial_state(batch)

    def step(self, features_BNF: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A chunk of a stream: (encoded frames that are complete, next state)."""
        return self.encoder.step(self._normalise(features_BNF), state)

    def flush(self, state: Any) -> Tensor:
        """Encoded frames that the encoder's look-ahead still held back when the stream ended."""
        return self.encoder.flush(state)

    def predict(self, tokens_BU: Tensor) -> Tensor:
        """predicted_BUD for every prefix of the labels, the empty one first."""
        return self.predictor.all_prefixes(tokens_BU)

    def predict_context(self, context_B2: Tensor) -> Tensor:
        """predicted_BD after the last two tokens (blanks before the first)."""
        return self.predictor(context_B2)

    def join(self, encoded_XD: Tensor, predicted_XD: Tensor) -> Tensor:
        return self.joiner(encoded_XD, predicted_XD)

    def _normalise(self, features_BNF: Tensor) -> Tensor:
        return (features_BNF - self.feature_mean_F) * self.feature_scale_F


def build_encoder(num_mel_bins: int, config: EncoderConfig) -> nn.Module:
    """The encoder that `config.name` says; Emformer needs torchaudio, which is imported only then."""
    if config.name == "lstm":
        return LSTMEncoder(num_mel_bins, config)
    from pipeline.models.emformer_encoder import EmformerConfig, EmformerEncoder

    given = {
        key: value
        for key in ("num_heads", "segment_frames", "left_context_frames", "right_context_frames", "dropout")
        if (value := getattr(config, key)) is not None
    }
    settings = EmformerConfig(
        num_layers=config.num_layers, width=config.width, feed_forward_width=4 * config.width, **given
    )
    return EmformerEncoder(num_mel_bins, settings)


def build_transducer(settings: Mapping[str, Any] | TransducerConfig) -> Transducer:
    return Transducer(TransducerConfig.of(settings))
