"""Where zeros go and how fine each row's step is, by what they cost: the sensitivity of a model's weights.

To second order, moving w to ŵ adds ½ Σ h (w − ŵ)² to the loss, h being the mean squared gradient: the diagonal of the
empirical Fisher matrix (LeCun et al. 1989, "Optimal brain damage", for zeros; Choi et al. 2017, arXiv 1612.01543,
section 4, for levels with entropy coding). Matrices of a recogniser differ a hundredfold in h, so equal shares and
equal levels for all of them waste both: zeros go to the recurrent matrix that hardly matters, fine steps to the gates
that do. What that is worth is in LOG.md.

Within a matrix all rows get the same share of zeros (see `sparsifier`).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.compression import quantizers
from pipeline.compression.zeros_and_bits import entropy_bits

COARSEST = quantizers.STEPS_PER_OCTAVE + 1  # candidates begin where a row's largest weight rounds to zero …
OCTAVES = 7  # … and go down from there
HALVINGS = 40  # of the interval for log10 λ
LOG10_EXCHANGE = (-16.0, 8.0)


def allocate_zeros(
    weights: Mapping[str, Tensor], sensitivities: Mapping[str, Tensor], sparsity: float
) -> dict[str, float]:
    """{matrix: share of zeros in each of its rows}: `sparsity` of all weights, at the least estimated cost.

    `weights`, `sensitivities`: {matrix: (R, C)}. Rows lose their smallest weights one after the other; the matrix whose
    rows lose the next one at the least cost a weight goes first.
    """
    prices, owners = [], []
    names = list(weights)
    for owner, name in enumerate(names):
        order_RC = weights[name].abs().argsort(dim=1, stable=True)
        cost_RC = sensitivities[name] * weights[name].square()
        price_C = cost_RC.gather(1, order_RC).mean(dim=0)
        prices.append(price_C.cummax(dim=0).values)  # in this order only: a cheap weight waits for a dear one
        owners.append(torch.full_like(price_C, owner, dtype=torch.long))
    owner_N = torch.cat(owners)[torch.cat(prices).argsort(stable=True)]
    rows_N = torch.tensor([weights[name].shape[0] for name in names])[owner_N]
    wanted = sparsity * sum(weight_RC.numel() for weight_RC in weights.values())
    dropped = int((rows_N.cumsum(dim=0) < wanted - 1e-6).sum()) + 1 if wanted > 0 else 0
    columns = torch.bincount(owner_N[:dropped], minlength=len(names))
    return {name: int(count) / weights[name].shape[1] for name, count in zip(names, columns, strict=True)}


def allocate_steps(
    weights: Mapping[str, Tensor], sensitivities: Mapping[str, Tensor], top: int, bits: float
) -> dict[str, Tensor]:
    """{matrix: grid steps (R,)} of the least estimated cost among those of at most `bits` a weight.

    `weights`, `sensitivities`: {matrix: (R, C)}; `bits`: entropy of a matrix's integers −top … top, averaged over all
    weights. If the finest candidates cost less, they are taken.
    """
    tables = {name: _candidates(weights[name], sensitivities[name], top) for name in weights}
    count = sum(weight_RC.numel() for weight_RC in weights.values())

    def at(log10_exchange: float) -> tuple[dict[str, Tensor], float]:
        steps, total = {}, 0.0
        for name, (step_KR, cost_KR, bits_KR) in tables.items():
            best_R = (cost_KR + 10.0**log10_exchange * bits_KR).argmin(dim=0)
            steps[name] = step_KR.gather(0, best_R[None])[0]
            total += (
                entropy_bits(quantizers.integers(weights[name], steps[name], top)) * weights[name].numel()
            )
        return steps, total / max(1, count)

    low, high = LOG10_EXCHANGE
    chosen, cheapest = at(low)
    if cheapest <= bits:
        return chosen
    chosen, _ = at(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        steps, spent = at(middle)
        if spent <= bits:
            chosen, high = steps, middle
        else:
            low = middle
    return chosen


def row_sensitivity(sensitivity_RC: Tensor, weight_RC: Tensor) -> Tensor:
    """Mean over a row's weights that are not zero, half-way towards the matrix's mean: estimates are noisy -> (R,)."""
    in_use_RC = (weight_RC != 0).to(sensitivity_RC)
    mean_R = (sensitivity_RC * in_use_RC).sum(dim=1) / in_use_RC.sum(dim=1).clamp_min(1.0)
    return (mean_R + mean_R.mean()) / 2


def _candidates(weight_RC: Tensor, sensitivity_RC: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """(steps, estimated cost, bits by the row's own entropy), each (K, R): K steps for every row."""
    sensitivity_R = row_sensitivity(sensitivity_RC, weight_RC)
    start_R = quantizers.nearest_index(quantizers.min_max_step(weight_RC, 1)) + COARSEST
    steps, costs, bits = [], [], []
    for down in range(OCTAVES * quantizers.STEPS_PER_OCTAVE):
        step_R = quantizers.step_of_index(
            (start_R - down).clamp(quantizers.LOWEST_INDEX, quantizers.HIGHEST_INDEX)
        )
        integer_RC = quantizers.integers(weight_RC, step_R, top)
        steps.append(step_R)
        costs.append(sensitivity_R * (integer_RC * step_R[:, None] - weight_RC).square().sum(dim=1))
        counts_RL = torch.zeros(len(step_R), 2 * top + 1)
        counts_RL.scatter_add_(1, (integer_RC + top).long(), torch.ones_like(weight_RC))
        share_RL = counts_RL / weight_RC.shape[1]
        bits.append(torch.special.entr(share_RL).sum(dim=1) * weight_RC.shape[1] / math.log(2.0))
    return torch.stack(steps), torch.stack(costs), torch.stack(bits)
