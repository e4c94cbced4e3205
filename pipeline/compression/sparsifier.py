"""Magnitude pruning with an equal quota for every row, on a cubic schedule.

Every row of a matrix loses the same number of weights: the four gates of an LSTM get the same share (arXiv
1912.00120: global saliency concentrates the survivors in a few gates) and a machine that gives a row to each
lane stays balanced.
`group_rows` rows may share a quota, e.g. a whole gate block.

A hidden weight gets no gradient and waits with the value it had, so that it comes back only where others shrink below
it (Zhu & Gupta 2017). With a straight-through gradient (Lin et al. 2020, arXiv 2006.07253) Adam moves hidden weights,
which change nothing, as fast as all others, and every new mask exchanges weights that were in use.
"""

import math

import torch
from torch import Tensor


def cubic_schedule(fraction: float, final: float, initial: float = 0.0) -> float:
    """Sparsity at `fraction` (0…1) of the ramp: Zhu & Gupta 2017 (arXiv 1710.01878), eq. 1."""
    rest = 1.0 - min(1.0, max(0.0, fraction))
    return final + (initial - final) * rest**3


def one_shot_schedule(fraction: float, final: float, initial: float = 0.0) -> float:
    """The control: everything at once, at the start."""
    return final


def magnitude_mask(weight_RC: Tensor, sparsity: float, group_rows: int = 1) -> Tensor:
    """Mask (R, C), bool: False for the ceil(sparsity · C · group_rows) smallest weights of a group of rows.

    Ties fall to the lower column. Rows that do not fill a group share the matrix as one group.
    """
    return _quota_mask(weight_RC.detach().abs(), sparsity, group_rows)


def random_mask(weight_RC: Tensor, sparsity: float, group_rows: int = 1) -> Tensor:
    """The control: the same quotas, weights drawn by lot (the same lot for the same shape)."""
    generator = torch.Generator().manual_seed(weight_RC.shape[0] * 1_000_003 + weight_RC.shape[1])
    scores_RC = torch.rand(weight_RC.shape, generator=generator).to(weight_RC.device)
    return _quota_mask(scores_RC, sparsity, group_rows)


def _quota_mask(score_RC: Tensor, sparsity: float, group_rows: int) -> Tensor:
    rows, columns = score_RC.shape
    if rows % group_rows:
        group_rows = rows
    score_GN = score_RC.reshape(rows // group_rows, group_rows * columns)
    dropped = math.ceil(sparsity * score_GN.shape[1] - 1e-9)
    order_GN = score_GN.argsort(dim=1, stable=True)
    mask_GN = torch.ones_like(score_GN, dtype=torch.bool)
    mask_GN.scatter_(1, order_GN[:, :dropped], False)
    return mask_GN.reshape(rows, columns)


SCHEDULES = {"cubic": cubic_schedule, "one_shot": one_shot_schedule}
MASKS = {"magnitude": magnitude_mask, "random": random_mask}
