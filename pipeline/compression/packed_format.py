"""One file: magic, version, JSON header, sections, checksum. Bytes only: knows no model and executes nothing.

    offset  bytes
    0       5       magic "SOTTO"
    5       1       version
    6       4       header size, little endian
    10      8       SHA-256 of the header (first 8 bytes)
    18      …       header (JSON, zstandard): sections with size and SHA-256, tensors with shape
    …       …       sections: weights (`row_coding`), vectors, scales (`entropy_coding`), plain (float16), others
    end-16  16      SHA-256 of everything before (first 16 bytes)

A wrong byte anywhere is a UserError that names the section. Sizes are checked before anything is allocated.
"""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zstandard

from pipeline.compression import entropy_coding, row_coding
from pipeline.errors import UserError

MAGIC, VERSION = b"SOTTO", 3
FIXED = struct.Struct("<5sBI8s")
SECTION_DIGEST, FILE_DIGEST = 8, 16
MAX_FILE_BYTES = 64 << 20
MAX_TEXT_BYTES = 4 << 20  # header or a text section, decompressed
MAX_VALUES = 1 << 24  # integers or float16 values of all tensors
MAX_TENSORS, MAX_DIMENSIONS = 4096, 4
CODED, PLAIN = "coded", "plain"


@dataclass(frozen=True)
class Coded:
    """A tensor that is scale x integer: integers (R, C) or (N,), grid index of each row's step or the one."""

    integers: np.ndarray
    scale_index: np.ndarray


@dataclass(frozen=True)
class Contents:
    """What a file holds. `info`: anything JSON; `plain`: float16 arrays; `others`: named bytes."""

    info: dict[str, Any]
    coded: dict[str, Coded] = field(default_factory=dict)
    plain: dict[str, np.ndarray] = field(default_factory=dict)
    others: dict[str, bytes] = field(default_factory=dict)


def pack(contents: Contents) -> bytes:
    """Contents -> the file's bytes, the same on every machine."""
    coded = contents.coded.values()
    matrices = [item.integers for item in coded if item.integers.ndim == 2]
    vectors = [item.integers.ravel() for item in coded if item.integers.ndim != 2]
    sections = {
        "weights": row_coding.encode(matrices),
        "vectors": entropy_coding.encode(vectors),
        "scales": entropy_coding.encode([item.scale_index for item in coded]),
        "plain": b"".join(array.astype("<f2").tobytes() for array in contents.plain.values()),
        **contents.others,
    }
    tensors = [[name, CODED, *item.integers.shape] for name, item in contents.coded.items()]
    tensors += [[name, PLAIN, *array.shape] for name, array in contents.plain.items()]
    listed = [[name, len(body), _digest(body, SECTION_DIGEST).hex()] for name, body in sections.items()]
    header = compress_text(to_json({"info": contents.info, "tensors": tensors, "sections": listed}))
    start = FIXED.pack(MAGIC, VERSION, len(header), _digest(header, SECTION_DIGEST))
    body = start + header + b"".join(sections.values())
    return body + _digest(body, FILE_DIGEST)


def unpack(data: bytes, source: str) -> Contents:
    """The file's bytes -> contents. Raises UserError("<source>: …") naming the section that is wrong."""
    header, sections = _sections(data, source)
    coded_shapes, plain_shapes = _shapes(header, source)
    matrices = {name: shape for name, shape in coded_shapes.items() if len(shape) == 2}
    vectors = {name: shape for name, shape in coded_shapes.items() if len(shape) != 2}
    rows = [shape[0] if len(shape) == 2 else 1 for shape in coded_shapes.values()]
    decoded = _decoded(row_coding.decode, sections, "weights", list(matrices.values()), source)
    lengths = [math.prod(shape) for shape in vectors.values()]
    flat = _decoded(entropy_coding.decode, sections, "vectors", lengths, source)
    integers = dict(zip(matrices, decoded, strict=True))
    integers |= {name: array.reshape(vectors[name]) for name, array in zip(vectors, flat, strict=True)}
    scale_index = _decoded(entropy_coding.decode, sections, "scales", rows, source)
    coded = {
        name: Coded(integers[name], index) for name, index in zip(coded_shapes, scale_index, strict=True)
    }
    if len(sections["plain"]) != 2 * sum(math.prod(shape) for shape in plain_shapes.values()):
        raise UserError(f"{source}: section plain does not hold the tensors that the header lists")
    plain, position = {}, 0
    for name, shape in plain_shapes.items():
        plain[name] = np.frombuffer(sections["plain"], "<f2", math.prod(shape), position).reshape(shape)
        position += 2 * math.prod(shape)
        if not np.isfinite(plain[name]).all():
            raise UserError(f"{source}: section plain holds numbers that are not finite")
    own = ("weights", "vectors", "scales", "plain")
    return Contents(header["info"], coded, plain, {n: b for n, b in sections.items() if n not in own})


def section_bytes(data: bytes, source: str) -> dict[str, bytes]:
    """{section: its body}, checked against its digest."""
    return _sections(data, source)[1]


def section_sizes(data: bytes, source: str) -> dict[str, int]:
    """{section: bytes}, `header` with all that is fixed; they add up to the file."""
    sizes = {name: len(body) for name, body in section_bytes(data, source).items()}
    return {"header": len(data) - sum(sizes.values()), **sizes}


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def compress_text(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(text)


def decompress_text(data: bytes) -> bytes:
    """Raises ValueError for what `compress_text` did not write, or beyond MAX_TEXT_BYTES."""
    try:
        if not 0 <= zstandard.get_frame_parameters(data).content_size <= MAX_TEXT_BYTES:
            raise ValueError("it is larger than a text may be")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError("it cannot be decompressed") from error


def _digest(data: bytes, size: int) -> bytes:
    return hashlib.sha256(data).digest()[:size]


def _sections(data: bytes, source: str) -> tuple[dict, dict[str, bytes]]:
    """Every check on bytes: (header, {section: body})."""
    if len(data) > MAX_FILE_BYTES:
        raise UserError(
            f"{source}: {len(data)} bytes are more than a packed file may have ({MAX_FILE_BYTES})"
        )
    if data[: len(MAGIC)] != MAGIC:
        raise UserError(f"{source}: is no packed recogniser (its magic is not {MAGIC.decode()})")
    if len(data) < FIXED.size + FILE_DIGEST:
        raise UserError(f"{source}: ends inside the header; the file is cut off")
    _, version, header_size, header_digest = FIXED.unpack_from(data)
    if version != VERSION:
        raise UserError(f"{source}: has version {version}; this program reads version {VERSION}")
    packed_header = data[FIXED.size : FIXED.size + header_size]
    if _digest(packed_header, SECTION_DIGEST) != header_digest:
        raise UserError(f"{source}: section header is damaged or cut off (wrong SHA-256)")
    try:
        header = json.loads(decompress_text(packed_header))
        listed = [(str(name), size, bytes.fromhex(digest)) for name, size, digest in header["sections"]]
        if not isinstance(header["info"], dict) or not isinstance(header["tensors"], list):
            raise ValueError("wrong types")
        if not all(type(size) is int and size >= 0 for _, size, _ in listed):
            raise ValueError("a size is no count")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{source}: section header is not what this program writes") from error
    sections, position = {}, FIXED.size + header_size
    for name, size, digest in listed:
        body = data[position : position + size]
        if position + size > len(data) - FILE_DIGEST:
            raise UserError(f"{source}: ends inside section {name}; the file is cut off")
        if _digest(body, SECTION_DIGEST) != digest:
            raise UserError(f"{source}: section {name} is damaged (wrong SHA-256)")
        sections[name], position = body, position + size
    if position != len(data) - FILE_DIGEST:
        raise UserError(f"{source}: section checksum does not follow the last section; bytes were added")
    if _digest(data[:position], FILE_DIGEST) != data[position:]:
        raise UserError(f"{source}: section checksum is damaged (it does not fit the file)")
    missing = {"weights", "vectors", "scales", "plain"} - sections.keys()
    if missing or len(sections) != len(listed):
        raise UserError(
            f"{source}: section header lists no or two sections {', '.join(sorted(missing)) or 'alike'}"
        )
    return header, sections


def _shapes(header: dict, source: str) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {CODED: {}, PLAIN: {}}
    total = 0
    try:
        if len(header["tensors"]) > MAX_TENSORS:
            raise ValueError("too many tensors")
        for name, kind, *shape in header["tensors"]:
            if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n <= MAX_VALUES for n in shape):
                raise ValueError("a shape is no shape")
            if not isinstance(name, str) or any(name in names for names in shapes.values()):
                raise ValueError("a name is none, or stands twice")
            shapes[kind][name] = tuple(shape)
            # Rows count too: a matrix without columns still has scales.
            total += max(math.prod(shape), *shape, 1)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{source}: section header lists impossible tensors") from error
    if total > MAX_VALUES:
        raise UserError(f"{source}: section header lists {total} values, more than {MAX_VALUES}")
    return shapes[CODED], shapes[PLAIN]


def _decoded(
    decode: Callable, sections: dict[str, bytes], section: str, sizes: Sequence, source: str
) -> list[np.ndarray]:
    try:
        return decode(sections[section], sizes)
    except entropy_coding.CorruptPayload as error:
        raise UserError(f"{source}: section {section} cannot be decoded: {error}") from error
