"""Zeros and entropy of a converted model, by layer and in all: what the curves, tables and metrics show."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class LayerBits(NamedTuple):
    """A matrix: number of weights, share of zeros, entropy of its integers, bits per weight (None: float)."""

    layer: str
    weights: int
    zeros: float
    entropy_bits: float | None


def layer_table(tensors: Mapping[str, Tensor]) -> list[LayerBits]:
    """A row for each matrix, in the model's order."""
    return [
        LayerBits(name, value.numel(), float((value == 0).float().mean()), _entropy(name, tensors))
        for name, value in tensors.items()
        if value.ndim == 2 and not name.endswith(".scale")
    ]


def totals(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """{"zeros": share, "entropy": bits per weight} of all matrices; no entropy if one of them is float."""
    rows = layer_table(tensors)
    count = max(1, sum(row.weights for row in rows))
    found = {"zeros": sum(row.zeros * row.weights for row in rows) / count}
    if rows and all(row.entropy_bits is not None for row in rows):
        found["entropy"] = sum((row.entropy_bits or 0.0) * row.weights for row in rows) / count
    return found


def entropy_bits(integer_RC: Tensor) -> float:
    """Entropy of a matrix's integers, bits a weight."""
    counts = torch.bincount((integer_RC - integer_RC.min()).flatten()).double()
    shares = counts[counts > 0] / integer_RC.numel()
    return float(-(shares * shares.log2()).sum())


def as_csv(rows: list[LayerBits]) -> str:
    lines = [f"{r.layer},{r.weights},{r.zeros:.6f},{_shown(r.entropy_bits)}" for r in rows]
    return "\n".join([",".join(LayerBits._fields), *lines]) + "\n"


def _shown(bits: float | None) -> str:
    return "" if bits is None else f"{bits:.6f}"


def _entropy(name: str, tensors: Mapping[str, Tensor]) -> float | None:
    scale_R = tensors.get(f"{name}.scale")
    if scale_R is None or tensors[name].numel() == 0:
        return None
    return entropy_bits((tensors[name] / scale_R[:, None]).round().long())
