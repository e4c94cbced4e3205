"""A neural language model over the tokenizer's pieces: an LSTM, larger than the whole recogniser on the device.

Pieces, not words: what the device's search can spell, this model can score, names that it never saw among them.
Token 0, the transducer's blank, begins and ends every sentence.

Shapes: B sentences, U pieces of the longest + 1, V tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from pipeline.errors import UserError
from pipeline.language.config import LanguageModelConfig

BOUNDARY_ID = 0
IGNORED = -100
LARGEST_BATCH = 8192  # pieces, padding included, that are scored at once

Tokens = Sequence[int]


class SentenceBatch(NamedTuple):
    """`inputs_BU` begins with a boundary, `targets_BU` ends with one; padding: BOUNDARY_ID and IGNORED."""

    inputs_BU: Tensor
    targets_BU: Tensor


class LanguageModel(nn.Module):
    def __init__(self, config: LanguageModelConfig):
        super().__init__()
        if config.vocab_size is None:
            raise UserError("language model settings: vocab_size must be given to build a model")
        self.config = config
        between = config.dropout if config.num_layers > 1 else 0.0
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_width)
        self.lstm = nn.LSTM(
            config.embedding_width, config.width, config.num_layers, dropout=between, batch_first=True
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.width, config.vocab_size)

    def forward(self, inputs_BU: Tensor) -> Tensor:
        """logits_BUV of the piece after each input."""
        hidden_BUD, _ = self.lstm(self.dropout(self.embedding(inputs_BU)))
        return self.output(self.dropout(hidden_BUD))


def batch_of(sentences: Sequence[Tokens]) -> SentenceBatch:
    """Token ids of sentences -> what the model reads and what it should predict."""
    boundary = [BOUNDARY_ID]
    inputs = [torch.tensor([*boundary, *tokens]) for tokens in sentences]
    targets = [torch.tensor([*tokens, *boundary]) for tokens in sentences]
    return SentenceBatch(
        pad_sequence(inputs, batch_first=True, padding_value=BOUNDARY_ID),
        pad_sequence(targets, batch_first=True, padding_value=IGNORED),
    )


def negative_log_probs(logits_BUV: Tensor, targets_BU: Tensor) -> Tensor:
    """loss_B in nats: of each sentence, its end included, padding not."""
    loss_BU = cross_entropy(logits_BUV.mT, targets_BU, reduction="none", ignore_index=IGNORED)
    return loss_BU.sum(-1)


@torch.inference_mode()
def log_probs(model: LanguageModel, sentences: Sequence[Tokens]) -> list[float]:
    """Natural log probability of each sentence, its end included; sentences of like length are scored together."""
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    found = [0.0] * len(sentences)
    while order:
        longest_first = order[::-1]
        size = max(1, LARGEST_BATCH // (len(sentences[longest_first[0]]) + 1))
        chosen, order = longest_first[:size], order[: max(0, len(order) - size)]
        batch = batch_of([sentences[index] for index in chosen])
        loss_B = negative_log_probs(model(batch.inputs_BU), batch.targets_BU)
        for index, loss in zip(chosen, loss_B.tolist(), strict=True):
            found[index] = -loss
    return found


def load_language_model(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LanguageModel:
    """The model of a hand-off's card and tensors, ready to score. Raises UserError if they do not fit each other."""
    try:
        model = LanguageModel(LanguageModelConfig(**settings))
        model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    except (TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"language model: its settings and tensors do not fit each other ({reason})"
        ) from error
    return model.eval().requires_grad_(False)
