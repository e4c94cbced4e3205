"""The recogniser's one file: quantised transducer, tokenizer, lexicon and feature settings, in the packed format.

    packed = load_packed("data/pack/model.sotto")
    packed.contents                                 # integers, for the compiled engine
    packed.model                                    # float32, for torch, which is imported only here

What only training needs (the CTC head) stays out of the file. `runtime/bundle_model.py` writes it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.compression import packed_format
from pipeline.compression.packed_format import Contents
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.lexicon import Lexicon
from pipeline.errors import UserError
from pipeline.runtime.tensors import LARGEST_SETTING, STATISTICS, check_tensors, config_of
from pipeline.runtime.word_section import section_lexicon

if TYPE_CHECKING:
    from pipeline.features.fbank import FbankConfig
    from pipeline.models.transducer import Transducer

# What a header that someone else wrote may cause.
WRONG_HEADER = (UserError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Packed:
    """A loaded file. `source`: its name in messages; `contents`: integers, which the compiled engine computes with."""

    source: str
    contents: Contents
    tokenizer: Tokenizer
    lexicon: Lexicon | None = None

    @property
    def header(self) -> dict[str, Any]:
        """{"model", "features", …} as written."""
        return self.contents.info

    @property
    def num_mel_bins(self) -> int:
        return self.header["features"]["num_mel_bins"]

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """Arrays beside the model's, float32."""
        plain = self.contents.plain.items()
        return {
            n.removeprefix(STATISTICS): a.astype(np.float32) for n, a in plain if n.startswith(STATISTICS)
        }

    @cached_property
    def model(self) -> "Transducer":
        """Its outputs are bit-equal to those of a float32 model with the same tensors. Built at the first use.

        Raises UserError for a wrong setting that `load_packed`, which compares sizes, has not noticed.
        """
        from pipeline.runtime.bundle_model import model_of

        try:
            return model_of(self.contents)
        except WRONG_HEADER as error:
            raise _no_model(self.source, error) from error

    @property
    def fbank_config(self) -> "FbankConfig":
        from pipeline.features.fbank import FbankConfig

        return FbankConfig(self.num_mel_bins)


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
    tokenizer = _unpack_tokenizer(contents.others.get("tokenizer", b""), source)
    packed = Packed(source, contents, tokenizer, _unpack_lexicon(contents.others, tokenizer, source))
    try:
        _check_settings(contents.info)
        config = config_of(contents)
        if config.vocab_size != tokenizer.vocab_size:
            raise ValueError(f"{config.vocab_size} tokens, but the tokenizer has {tokenizer.vocab_size}")
        if config.encoder.name == "lstm":
            check_tensors(config, contents)
    except WRONG_HEADER as error:
        raise _no_model(source, error) from error
    if config.encoder.name != "lstm":
        _ = packed.model  # only building it tells whether it fits
    return packed


def _no_model(source: str, error: Exception) -> UserError:
    message = " ".join(str(error).split())[:300]
    return UserError(f"{source}: section header describes no model of this program ({message})")


def _check_settings(settings: Any) -> None:
    """ValueError for a number that no model of ours has: a forged file must not make us build for hours."""
    if isinstance(settings, dict):
        for value in settings.values():
            _check_settings(value)
    elif isinstance(settings, int) and abs(settings) > LARGEST_SETTING:
        raise ValueError(f"the number {settings} is too large")


def pack_tokenizer(tokenizer: Tokenizer) -> bytes:
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


def _unpack_lexicon(sections: Mapping[str, bytes], tokenizer: Tokenizer, source: str) -> Lexicon | None:
    if "lexicon" not in sections:
        return None
    try:
        return section_lexicon(sections["lexicon"], tokenizer)
    except ValueError as error:
        raise UserError(f"{source}: section lexicon holds no words and classes ({error})") from error


def _ranks(count: int) -> list[float]:
    return [0.0, 0.0] + [-float(rank) for rank in range(count - 2)]
