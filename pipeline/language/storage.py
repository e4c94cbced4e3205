"""Language model and intent classifier as one dict of tensors and one of settings, and back."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.errors import UserError
from pipeline.language.intents import IntentClassifier
from pipeline.language.neural import LanguageModel, load_language_model

MODEL, INTENTS = "model.", "intents."


@dataclass(frozen=True, eq=False)
class Language:
    """`tokenizer_hash`: of the tokenizer that the model was trained with; scores mean nothing with another one."""

    model: LanguageModel
    intents: IntentClassifier
    tokenizer_hash: str


def tensors_of(language: Language) -> dict[str, Tensor]:
    """For `model.safetensors`."""
    tensors = {f"{MODEL}{name}": value for name, value in language.model.state_dict().items()}
    for name in ("log_prior_I", "log_prob_IW"):
        tensors[f"{INTENTS}{name}"] = getattr(language.intents, name)
    return tensors


def card_of(language: Language) -> dict[str, Any]:
    """For `card.json`."""
    intents = {"names": list(language.intents.names), "terms": list(language.intents.terms)}
    settings = dataclasses.asdict(language.model.config)
    return {"model": settings, "intents": intents, "tokenizer_hash": language.tokenizer_hash}


def load_language(card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Language:
    """What `card_of` and `tensors_of` took apart. Raises UserError if something is missing or does not fit."""
    part = {name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)}
    try:
        intents = IntentClassifier(
            tuple(card["intents"]["names"]),
            tuple(card["intents"]["terms"]),
            tensors[f"{INTENTS}log_prior_I"],
            tensors[f"{INTENTS}log_prob_IW"],
        )
        return Language(load_language_model(card["model"], part), intents, card["tokenizer_hash"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"language model: its card or tensors lack {error}; run `dvc repro language_model`"
        ) from error
