"""The recogniser's file (`runtime/bundle.py`) by torch: from a converted model to the file, and back to a model."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.compression import packed_format, quantizers
from pipeline.compression.packed_format import Coded, Contents
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.lexicon import Lexicon
from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig
from pipeline.files import write_atomically
from pipeline.models.transducer import TRAINING_ONLY, Transducer, build_transducer, without_training_heads
from pipeline.runtime.bundle import pack_tokenizer
from pipeline.runtime.tensors import STATISTICS, check_shapes
from pipeline.runtime.word_section import pack_words


def write_packed(
    path: str | Path,
    model_config: Mapping[str, Any] | Any,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    features_config: FbankConfig,
    statistics: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
    lexicon: Lexicon | None = None,
) -> int:
    """Write the file (whole or not at all) and return its size in bytes.

    `model_config`: TransducerConfig or its dict; `tensors`: a state dict with the `<name>.scale` of
    `Compressor.convert`; `info`: short facts to carry along. Raises UserError for a matrix without scale.
    """
    kept = without_training_heads(tensors)
    coded, plain = {}, {}
    for name, value in kept.items():
        if name.endswith(".scale") and name.removesuffix(".scale") in kept:
            continue
        scale_R = kept.get(f"{name}.scale")
        if scale_R is not None:
            coded[name] = _coded(name, value, scale_R)
        elif value.ndim == 2:
            raise UserError(f"{path}: matrix {name} has no scale; only a quantised model can be packed")
        else:
            plain[name] = value.half().numpy()
    plain |= {f"{STATISTICS}{name}": value.half().numpy() for name, value in (statistics or {}).items()}
    header = {"model": _plain_dict(model_config), "features": _plain_dict(features_config), **(info or {})}
    others = {"tokenizer": pack_tokenizer(tokenizer)}
    if lexicon is not None:
        others["lexicon"] = pack_words(lexicon.ngram, lexicon.weights)
    contents = Contents(header, coded, plain, others)
    data = packed_format.pack(contents)
    write_atomically(Path(path), data)
    return len(data)


def model_of(contents: Contents) -> Transducer:
    """The model with these tensors. Names and shapes are compared before memory is taken for it."""
    tensors = {name: _floats(item) for name, item in contents.coded.items()}
    tensors |= {name: torch.from_numpy(array.astype(np.float32)) for name, array in contents.plain.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(STATISTICS)}
    with torch.device("meta"):
        skeleton = build_transducer(contents.info["model"]).state_dict()
    check_shapes(
        {name: tuple(t.shape) for name, t in skeleton.items() if not name.startswith(TRAINING_ONLY)},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )
    with torch.random.fork_rng(devices=[]):
        model = build_transducer(contents.info["model"])
    for head in TRAINING_ONLY:
        setattr(model, head.removesuffix("."), None)
    model.load_state_dict(tensors, strict=True)
    return model.eval().requires_grad_(False)


def _coded(name: str, value: Tensor, scale_R: Tensor) -> Coded:
    shape = (-1, 1) if value.ndim == 2 else (-1,)
    integers = (value / scale_R.reshape(shape)).round()
    if not torch.equal(integers * scale_R.reshape(shape), value):
        raise UserError(f"tensor {name} is not scale x integer; only converted models can be packed")
    return Coded(integers.int().numpy(), quantizers.index_of_step(scale_R).numpy())


def _floats(item: Coded) -> Tensor:
    step_R = quantizers.step_of_index(torch.from_numpy(item.scale_index).long())
    integers = torch.from_numpy(item.integers).float()
    return integers * (step_R[:, None] if integers.ndim == 2 else step_R)


def _plain_dict(config: Any) -> dict[str, Any]:
    return asdict(config) if is_dataclass(config) else dict(config)
