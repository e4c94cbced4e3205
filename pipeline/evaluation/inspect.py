"""What a packed file holds, for `sotto inspect` and the report: sections, bytes, bits for each weight,
zeros.
"""

import math
from pathlib import Path

import numpy as np

from pipeline.compression import row_coding
from pipeline.compression.packed_format import section_bytes, section_sizes, unpack
from pipeline.errors import UserError
from pipeline.evaluation.size import megabytes


def describe(path: str | Path) -> dict:
    """Flat facts of a packed file; UserError if it is absent or damaged.

    `entropy_bits`: the entropy of each tensor's own symbols. `weights_over_entropy`: section `weights` against the
    entropy of the matrices' symbols by the kinds of their rows, which is less.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give the path of a .sotto file"
        ) from error
    contents = unpack(data, str(path))
    sections = section_sizes(data, str(path))
    tensors = [_tensor(name, item.integers) for name, item in contents.coded.items()]
    matrices = [tensor for tensor in tensors if len(tensor["shape"]) == 2]
    num_weights = sum(math.prod(tensor["shape"]) for tensor in matrices)
    num_parameters = sum(math.prod(t["shape"]) for t in tensors) + sum(
        a.size for a in contents.plain.values()
    )
    integers = [item.integers for item in contents.coded.values() if item.integers.ndim == 2]
    entropy_bytes = row_coding.entropy_bits(section_bytes(data, str(path))["weights"], integers) / 8
    return {
        "file": str(path),
        "bytes": len(data),
        "sections": sections,
        "params": num_parameters,
        "weights": num_weights,
        "bits_per_weight": 8 * len(data) / max(1, num_parameters),
        "weights_over_entropy": sections["weights"] / max(1.0, entropy_bytes),
        "zeros": sum(t["zeros"] * math.prod(t["shape"]) for t in matrices) / max(1, num_weights),
        "info": contents.info,
        "tensors": tensors,
    }


def render(description: dict) -> str:
    """The description as text for a terminal."""
    lines = [
        f"{description['file']}: {description['bytes']:,} bytes ({megabytes(description['bytes'])})",
        f"  {description['params']:,} parameters, {description['weights']:,} of them in matrices",
        f"  {description['bits_per_weight']:.3f} bits a weight (the whole file over all parameters)",
        f"  {100 * description['zeros']:.1f} % of the weights are zero",
        f"  section weights: {description['weights_over_entropy']:.4f} x the entropy of its symbols by kind of row",
        "sections, bytes",
        *(f"  {name:<12} {size:>10,}" for name, size in description["sections"].items()),
        "tensors" + " " * 45 + "shape   levels   zeros   bits",
    ]
    for tensor in description["tensors"]:
        shape = " x ".join(map(str, tensor["shape"]))
        count = max(1, math.prod(tensor["shape"]))
        lines.append(
            f"  {tensor['name']:<40} {shape:>15} {tensor['levels']:>8} {100 * tensor['zeros']:>6.1f}% "
            f"{tensor['entropy_bits'] / count:>6.2f}"
        )
    return "\n".join(lines)


def _tensor(name: str, integers: np.ndarray) -> dict:
    values, counts = np.unique(integers, return_counts=True)
    shares = counts / max(1, counts.sum())
    return {
        "name": name,
        "shape": list(integers.shape),
        "levels": len(values),
        "zeros": float((integers == 0).mean()) if integers.size else 0.0,
        "entropy_bits": float(-(counts * np.log2(shares)).sum()) if integers.size else 0.0,
    }
