"""Bytes: what a step's weights take when stored the obvious way, and what the packed file takes.

Every `bytes/<model>` counts all parameters. Teacher and student: fp32. Sparse: one mask bit per matrix
weight and fp32 for what is left. Quantised: symbols of fixed width (4 bits for 15 levels) and one fp32
scale per row. Packed: the file as it lies on the disk, header, tokenizer, checksums and all.
"""

import math
from collections.abc import Mapping
from pathlib import Path

BYTES_FP32 = 4


def num_parameters(parameters: Mapping) -> int:
    """Number of values in a dict of tensors (or arrays); `<name>.scale` of a quantised matrix is not a
    parameter.
    """
    return sum(
        math.prod(value.shape) for name, value in parameters.items() if not _is_scale(name, parameters)
    )


def bytes_fp32(parameters: Mapping) -> int:
    """4 bytes for every parameter."""
    return BYTES_FP32 * num_parameters(parameters)


def zeros(parameters: Mapping) -> float:
    """Fraction of exact zeros among the weights that compress (the matrices), 0…1."""
    matrices = weight_matrices(parameters)
    total = sum(math.prod(value.shape) for value in matrices.values())
    return sum(int((value == 0).sum()) for value in matrices.values()) / max(1, total)


def zeros_per_layer(parameters: Mapping) -> dict[str, float]:
    """{matrix name: fraction of zeros}, in the model's order."""
    return {
        name: int((value == 0).sum()) / math.prod(value.shape)
        for name, value in weight_matrices(parameters).items()
    }


def weight_matrices(parameters: Mapping) -> dict:
    """The 2-D parameters: those that are sparsified and quantised."""
    return {
        name: value
        for name, value in parameters.items()
        if len(value.shape) == 2 and not _is_scale(name, parameters)
    }


def stored_bytes(parameters: Mapping) -> int:
    """Bytes of the parameters without an entropy coder: the cheaper of dense and mask + values for each
    matrix.

    A tensor with a `<name>.scale` beside it holds scale x integer: its values cost ceil(log2(levels)) bits
    each, the levels being those that -max…max spans, and its scales 4 bytes each.
    """
    bits = 0
    for name, value in parameters.items():
        if _is_scale(name, parameters):
            bits += 8 * BYTES_FP32 * math.prod(value.shape)
            continue
        count = math.prod(value.shape)
        width_bits = 8 * BYTES_FP32
        if f"{name}.scale" in parameters:
            width_bits = _symbol_bits(value, parameters[f"{name}.scale"])
        dense_bits = count * width_bits
        sparse_bits = count + (count - int((value == 0).sum())) * width_bits
        bits += min(dense_bits, sparse_bits) if len(value.shape) == 2 else dense_bits
    return math.ceil(bits / 8)


def bits_per_weight(size_bytes: int, parameters: Mapping) -> float:
    """Bits for each parameter, when the parameters take `size_bytes`."""
    return 8 * size_bytes / max(1, num_parameters(parameters))


def file_bytes(path: str | Path) -> int:
    """Size of a file on disk, bytes."""
    return Path(path).stat().st_size


def megabytes(size_bytes: float) -> str:
    """12,345,678 -> '12.3 MB'; below a megabyte '123.4 kB'."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def _symbol_bits(value, scale) -> int:
    """Bits of one symbol; `scale` is (R,) for a matrix and (1,) for a vector."""
    largest = int(abs(value / (scale.reshape(-1, 1) if len(value.shape) == 2 else scale)).max().round())
    return max(1, math.ceil(math.log2(2 * largest + 1)))


def _is_scale(name: str, parameters: Mapping) -> bool:
    return name.endswith(".scale") and name.removesuffix(".scale") in parameters
