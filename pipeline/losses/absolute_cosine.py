"""ACosR: the absolute-cosine regulariser pulls weights to the quantiser's levels, in the backward pass only.

Nguyen, Alexandridis, Mouchtaris, "Quantization aware training with absolute-cosine regularization for ASR"
(Interspeech 2020). With levels at integer multiples of the step s it reads |cos(pi (w/s + 1/2))|, which is
|sin(pi w/s)|: its minima are the levels, zero among them. (A bare |cos(pi w/s)| has its minima half-way, and
no zero level.)
"""

import math

import torch
from torch import Tensor


def absolute_cosine(weight_RC: Tensor, step_R: Tensor) -> Tensor:
    """Weights (R, C) and steps (R,) > 0 -> sum of |sin(pi w/s)|, a scalar, 0 on the grid."""
    return torch.sin(math.pi * weight_RC / step_R[:, None]).abs().sum()
