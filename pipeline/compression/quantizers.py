"""Fake quantizers: weights become scale x integer on a grid of -max_level … max_level with a true zero.

One step for each row (R) of a matrix (R, C). Steps lie on a geometric grid of eight per octave whose values
are exact in float16, so that scale x integer is exact in float32 and a step costs about four bits instead of
sixteen in the packed file. Training sees the rounded step: nothing changes when the model is packed.
`levels` is odd: 3 (ternary), 7, 15, 31 … 255; max_level = (levels - 1) / 2.
"""

import functools
import math

import torch
from torch import Tensor

from pipeline.errors import UserError

STEPS_PER_OCTAVE = 8
MANTISSAS = (1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878)  # round(1024 · 2^(i/8))
LOWEST_INDEX = -14 * STEPS_PER_OCTAVE  # 2^-14, the smallest normal float16
HIGHEST_INDEX = 16 * STEPS_PER_OCTAVE - 1


def max_level(levels: int) -> int:
    """15 -> 7. UserError for a count without a zero in its middle, or beyond a byte."""
    if not 3 <= levels <= 255 or levels % 2 == 0:
        raise UserError(f"levels: {levels} must be an odd number between 3 and 255 (zero is a level)")
    return (levels - 1) // 2


@functools.lru_cache(maxsize=1)
def grid_values() -> tuple[float, ...]:
    """Every step there is, ascending; position i holds index LOWEST_INDEX + i."""
    octaves = (divmod(index, STEPS_PER_OCTAVE) for index in range(LOWEST_INDEX, HIGHEST_INDEX + 1))
    return tuple(math.ldexp(MANTISSAS[part], octave - 10) for octave, part in octaves)


def step_of_index(index_R: Tensor) -> Tensor:
    """Grid indices (R,) int64 -> steps (R,) float32."""
    values = torch.tensor(grid_values(), device=index_R.device)
    return values[index_R.clamp(LOWEST_INDEX, HIGHEST_INDEX) - LOWEST_INDEX]


def nearest_index(step_R: Tensor) -> Tensor:
    """Positive steps -> index of the nearest grid step (in octaves)."""
    log2_R = step_R.clamp_min(grid_values()[0]).log2()
    return (log2_R * STEPS_PER_OCTAVE).round().long().clamp(LOWEST_INDEX, HIGHEST_INDEX)


def index_of_step(step_R: Tensor) -> Tensor:
    """Steps that are on the grid -> their indices; UserError for any other value."""
    index_R = nearest_index(step_R)
    if not torch.equal(step_of_index(index_R), step_R.float()):
        raise UserError("a scale lies off the step grid: these tensors were not made by Compressor.convert")
    return index_R


class _FakeQuantize(torch.autograd.Function):
    """LSQ (Esser et al. 2020, arXiv 1902.08153, eq. 1-3, section 2.2) on log2 steps rounded to the grid."""

    @staticmethod
    def forward(ctx, weight_RC: Tensor, log2_step_R: Tensor, top: int) -> Tensor:
        index_R = (log2_step_R * STEPS_PER_OCTAVE).round().long()
        step_R1 = step_of_index(index_R)[:, None]
        scaled_RC = weight_RC / step_R1
        integer_RC = scaled_RC.round().clamp_(-top, top)
        ctx.save_for_backward(scaled_RC, integer_RC, step_R1)
        ctx.top = top
        return integer_RC * step_R1

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (grad_RC,) = grads
        scaled_RC, integer_RC, step_R1 = ctx.saved_tensors
        inside_RC = (scaled_RC.abs() < ctx.top).to(grad_RC.dtype)  # torch.where is 10 x slower
        slope_RC = integer_RC - scaled_RC * inside_RC  # ∂ŵ/∂s; outside: ±max_level
        gradient_scale = 1.0 / math.sqrt(scaled_RC.shape[1] * ctx.top)
        grad_step_R = torch.linalg.vecdot(grad_RC, slope_RC) * gradient_scale
        # Chain rule for s = 2^log2_step: Adam then moves steps by ratios, whatever their size.
        return grad_RC * inside_RC, grad_step_R * step_R1[:, 0] * math.log(2.0), None


def fake_quantize(weight_RC: Tensor, log2_step_R: Tensor, top: int) -> Tensor:
    """Nearest grid point of each weight (R, C); straight-through for weights, LSQ's gradient for steps."""
    return _FakeQuantize.apply(weight_RC, log2_step_R, top)


def integers(weight_RC: Tensor, step_R: Tensor, top: int) -> Tensor:
    """The integers that `fake_quantize` rounds to, int32 (R, C)."""
    return (weight_RC / step_R[:, None]).round().clamp(-top, top).int()


def lsq_step(weight_RC: Tensor, top: int) -> Tensor:
    """LSQ's start: 2 E|w| / sqrt(max_level), over the weights that are not zero -> (R,)."""
    count_R = (weight_RC != 0).sum(dim=1).clamp_min(1)
    return 2.0 * weight_RC.abs().sum(dim=1) / count_R / math.sqrt(top)


def min_max_step(weight_RC: Tensor, top: int) -> Tensor:
    """The smallest grid step that clips nothing -> (R,)."""
    needed_R = (weight_RC.abs().amax(dim=1) / top).clamp_min(grid_values()[0])
    index_R = nearest_index(needed_R)
    index_R = index_R + (step_of_index(index_R) < needed_R)
    return step_of_index(index_R)


def mse_step(weight_RC: Tensor, top: int, octaves: int = 5) -> Tensor:
    """The grid step of least squared rounding error for each row, trying all below min-max -> (R,)."""
    start_R = nearest_index(min_max_step(weight_RC, top))
    best_R, least_R = start_R, torch.full_like(weight_RC[:, 0], math.inf)
    for down in range(octaves * STEPS_PER_OCTAVE):
        index_R = (start_R - down).clamp_min(LOWEST_INDEX)
        step_R1 = step_of_index(index_R)[:, None]
        rounded_RC = (weight_RC / step_R1).round().clamp(-top, top) * step_R1
        error_R = (rounded_RC - weight_RC).square().sum(dim=1)
        best_R = torch.where(error_R < least_R, index_R, best_R)
        least_R = torch.minimum(error_R, least_R)
    return step_of_index(best_R)


def rate(weight_RC: Tensor, step_R: Tensor) -> Tensor:
    """Mean of log2(1 + 2|w/s|): a smooth bound that grows with the bits a weight costs (after Oktay 2019)."""
    return torch.log2(1.0 + 2.0 * (weight_RC / step_R[:, None]).abs()).mean()


# How the steps are found at the start. `lsq` goes on learning them; the others keep or recompute them.
FIRST_STEPS = {"lsq": mse_step, "min_max": min_max_step, "mse": mse_step, "absolute_cosine": mse_step}
