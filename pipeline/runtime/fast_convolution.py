"""Convolutions of a packed encoder inside one 80 ms frame, compiled: the arithmetic of models/convolution.py."""

import numpy as np
from numba import njit

compiled = njit(cache=True, fastmath={"contract"}, error_model="numpy")


@compiled
def convolve(x_NF, weights):
    """A frame's normalised features -> the flat output of the last layer; of no layers: the features, flat."""
    x_TFC = x_NF.reshape((x_NF.shape[0], x_NF.shape[1], 1))
    from_kernel, from_bias = 0, 0
    for layer in range(len(weights.sizes_L4)):
        num_in, num_out, time_stride, frequency_stride = weights.sizes_L4[layer]
        to_kernel, to_bias = from_kernel + 9 * num_in * num_out, from_bias + num_out
        kernel_CK = weights.kernels[from_kernel:to_kernel].reshape((num_in, 9 * num_out))
        bias_O = weights.biases[from_bias:to_bias]
        x_TFC = _layer(x_TFC, kernel_CK, bias_O, time_stride, frequency_stride)
        from_kernel, from_bias = to_kernel, to_bias
    return x_TFC.reshape(-1)


@compiled
def _layer(x_TFC, kernel_CK, bias_O, time_stride, frequency_stride):
    """One layer, an input channel after the other: its part of the kernel stays in the first-level cache.

    K: nine places by output channels. All nine are summed at once: y is read and written a ninth as often.
    """
    num_times, num_bins, num_in = x_TFC.shape
    num_out = len(bias_O)
    padded_TFC = np.zeros((num_times + 2, num_bins + 2, num_in), np.float32)
    padded_TFC[1:-1, 1:-1] = x_TFC
    y_TFO = np.empty((-(-num_times // time_stride), -(-num_bins // frequency_stride), num_out), np.float32)
    y_TFO[:] = bias_O
    for c in range(num_in):
        w = kernel_CK[c]
        for t in range(y_TFO.shape[0]):
            rows_3F = padded_TFC[t * time_stride : t * time_stride + 3, :, c]
            for f in range(y_TFO.shape[1]):
                x_33 = rows_3F[:, f * frequency_stride : f * frequency_stride + 3]
                a, b, d = x_33[0, 0], x_33[0, 1], x_33[0, 2]
                i, j, k = x_33[1, 0], x_33[1, 1], x_33[1, 2]
                p, q, s = x_33[2, 0], x_33[2, 1], x_33[2, 2]
                y_O = y_TFO[t, f]
                for o in range(num_out):
                    first = w[o] * a + w[num_out + o] * b + w[2 * num_out + o] * d
                    second = w[3 * num_out + o] * i + w[4 * num_out + o] * j + w[5 * num_out + o] * k
                    third = w[6 * num_out + o] * p + w[7 * num_out + o] * q + w[8 * num_out + o] * s
                    y_O[o] += first + second + third
    return np.maximum(y_TFO, np.float32(0))
