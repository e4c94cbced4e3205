"""The recogniser's one file: quantised transducer, tokenizer and feature settings, in the packed format.

`write_packed` takes what `Compressor.convert` returned; `load_packed` gives a model whose outputs are
bit-equal to a float32 model with the same tensors. What only training needs (the CTC head) stays out of the
file.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.compression import packed_format, quantizers
from pipeline.compression.packed_format import Coded, Contents
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig
from pipeline.files import write_atomically
from pipeline.models.transducer import TRAINING_ONLY, Transducer, build_transducer

STATISTICS = "statistics."  # prefix of tensors beside the model's
LARGEST_SETTING = 8192  # no width, layer count or table of a file's model may be larger


@dataclass(frozen=True)
class Packed:
    """A loaded file. `header`: {"model", "features", …} as written; `statistics`: {name: float32 tensor}; `contents`:
    the integers that the compiled engine computes with, None where the model came from no file.
    """

    model: Transducer
    tokenizer: Tokenizer
    fbank_config: FbankConfig
    header: dict[str, Any]
    statistics: dict[str, Tensor]
    contents: Contents | None = None


def write_packed(
    path: str | Path,
    model_config: Mapping[str, Any] | Any,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    features_config: FbankConfig,
    statistics: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
) -> int:
    """Write the file (whole or not at all) and return its size in bytes.

    `model_config`: TransducerConfig or its dict; `tensors`: a state dict with the `<name>.scale` of
    `Compressor.convert`; `info`: short facts to carry along. Raises UserError for a matrix without scale.
    """
    kept = {name: value for name, value in tensors.items() if not name.startswith(TRAINING_ONLY)}
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
    contents = Contents(header, coded, plain, {"tokenizer": _pack_tokenizer(tokenizer)})
    data = packed_format.pack(contents)
    write_atomically(Path(path), data)
    return len(data)


def load_packed(path: str | os.PathLike) -> Packed:
    """Read a packed recogniser; UserError naming file and section if anything in it is wrong."""
    source = str(path)
    try:
        if os.path.getsize(source) > packed_format.MAX_FILE_BYTES:
            raise UserError(f"{source}: is too large to be a packed recogniser")
        data = Path(source).read_bytes()
    except OSError as error:
        raise UserError(
            f"{source}: cannot be read ({error.strerror}); give the path of a .sotto file"
        ) from error
    contents = packed_format.unpack(data, source)
    tensors = {name: _floats(item) for name, item in contents.coded.items()}
    tensors |= {name: torch.from_numpy(array.astype(np.float32)) for name, array in contents.plain.items()}
    statistics = {n.removeprefix(STATISTICS): t for n, t in tensors.items() if n.startswith(STATISTICS)}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(STATISTICS)}
    tokenizer = _unpack_tokenizer(contents.others.get("tokenizer", b""), source)
    try:
        _check_settings(contents.info)
        fbank_config = FbankConfig(**contents.info["features"])
        model = _build(contents.info["model"], tensors)
    except (UserError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        message = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: section header describes no model of this program ({message})") from error
    return Packed(model, tokenizer, fbank_config, contents.info, statistics, contents)


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


def _build(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> Transducer:
    """The model with these tensors. Names and shapes are compared before memory is taken for it."""
    with torch.device("meta"):
        skeleton = build_transducer(config).state_dict()
    expected = {name: tuple(t.shape) for name, t in skeleton.items() if not name.startswith(TRAINING_ONLY)}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in expected.keys() | given.keys():
        if expected.get(name) != given.get(name):
            raise ValueError(f"{name} has shape {given.get(name)}, the model needs {expected.get(name)}")
    with torch.random.fork_rng(devices=[]):
        model = build_transducer(config)
    for head in TRAINING_ONLY:
        setattr(model, head.removesuffix("."), None)
    model.load_state_dict(dict(tensors), strict=True)
    return model.eval().requires_grad_(False)


def _check_settings(settings: Any) -> None:
    """ValueError for a number that no model of ours has: a forged file must not make us build for hours."""
    if isinstance(settings, dict):
        for value in settings.values():
            _check_settings(value)
    elif isinstance(settings, int) and abs(settings) > LARGEST_SETTING:
        raise ValueError(f"the number {settings} is too large")


def _plain_dict(config: Any) -> dict[str, Any]:
    return asdict(config) if is_dataclass(config) else dict(config)


def _pack_tokenizer(tokenizer: Tokenizer) -> bytes:
    """Pieces, one a line; scores only if they are not the ranks that a byte-pair model has."""
    pieces, scores = zip(*tokenizer.pieces, strict=True)
    if repr(list(scores)) == repr(_ranks(len(pieces))):
        scores = ()
    text = "\n".join([*pieces, *(repr(float(score)) for score in scores)])
    return len(pieces).to_bytes(2, "little") + packed_format.compress_text(text.encode())


def _unpack_tokenizer(data: bytes, source: str) -> Tokenizer:
    try:
        count = int.from_bytes(data[:2], "little")
        lines = packed_format.decompress_text(data[2:]).decode().split("\n")
        pieces, scores = lines[:count], [float(score) for score in lines[count:]] or _ranks(count)
        return Tokenizer.from_pieces(list(zip(pieces, scores, strict=True)))
    except (ValueError, RuntimeError, UserError) as error:
        raise UserError(f"{source}: section tokenizer holds no list of tokens") from error


def _ranks(count: int) -> list[float]:
    return [0.0, 0.0] + [-float(rank) for rank in range(count - 2)]
