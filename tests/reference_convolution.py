"""A convolution layer as loops over its output, written from its definition (pipeline/models/convolution.py)."""

import numpy as np


def slow_convolution(
    x_TFC: np.ndarray, weight_OK: np.ndarray, bias_O: np.ndarray, stride: tuple[int, int]
) -> np.ndarray:
    """3 × 3, zeros around, ReLU; a row of the weight goes by place in time, place in frequency, input channel."""
    num_times, num_bins, num_in = x_TFC.shape
    shape = (-(-num_times // stride[0]), -(-num_bins // stride[1]), len(weight_OK))
    y_TFO = np.zeros(shape)
    for t, f, o in np.ndindex(shape):
        total = float(bias_O[o])
        for i, j, c in np.ndindex(3, 3, num_in):
            time, frequency = t * stride[0] + i - 1, f * stride[1] + j - 1
            if 0 <= time < num_times and 0 <= frequency < num_bins:
                total += float(x_TFC[time, frequency, c]) * float(weight_OK[o, (3 * i + j) * num_in + c])
        y_TFO[t, f, o] = max(total, 0.0)
    return y_TFO
