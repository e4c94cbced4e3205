"""The end-pointer of decoding/endpoint_model.py, compiled: a frame or the middle of one, of many streams."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipeline.decoding.endpoint_input import PAUSE_FEATURES, EndpointModelConfig
from pipeline.runtime.fast_step import compiled, sigmoid, tanh
from pipeline.runtime.tensors import check_shapes

COUNTS = np.array([name in ("frames_since_token", "num_words") for name in PAUSE_FEATURES])


class EndpointWeights(NamedTuple):
    """float32; matrices transposed. P: projected encoder width, C: P and the pause features, H: cells, G = 3 H (gates
    r, z, n). Of the middle of a frame: F: mel bins, S: projected change of sound, B: H and S.
    """

    projection_DP: np.ndarray
    projection_bias_P: np.ndarray
    from_input_CG: np.ndarray
    from_hidden_HG: np.ndarray
    bias_2G: np.ndarray
    output_H: np.ndarray
    output_bias: np.ndarray
    change_FS: np.ndarray
    change_bias_S: np.ndarray
    half_hidden_BH: np.ndarray
    half_bias_H: np.ndarray
    half_output_H: np.ndarray
    half_output_bias: np.ndarray


def weights_of(arrays: Mapping[str, np.ndarray], config: EndpointModelConfig) -> EndpointWeights:
    """A model's weights by name (`EndpointModel.arrays`). ValueError unless they are those of these sizes."""
    width, projected, change = config.width, config.projected_width, config.change_width
    check_shapes(
        {
            "projection.weight": (projected, config.encoder_width),
            "projection.bias": (projected,),
            "weight_ih": (3 * width, projected + len(PAUSE_FEATURES)),
            "weight_hh": (3 * width, width),
            "bias_ih": (3 * width,),
            "bias_hh": (3 * width,),
            "output.weight": (1, width),
            "output.bias": (1,),
            "change.weight": (change, config.num_mel_bins),
            "change.bias": (change,),
            "half_hidden.weight": (width, width + change),
            "half_hidden.bias": (width,),
            "half_output.weight": (1, width),
            "half_output.bias": (1,),
        },
        {name: array.shape for name, array in arrays.items()},
    )
    given = {name: array.astype(np.float32) for name, array in arrays.items()}
    return EndpointWeights(
        np.ascontiguousarray(given["projection.weight"].T),
        given["projection.bias"],
        np.ascontiguousarray(given["weight_ih"].T),
        np.ascontiguousarray(given["weight_hh"].T),
        np.stack([given["bias_ih"], given["bias_hh"]]),
        given["output.weight"][0],
        given["output.bias"],
        np.ascontiguousarray(given["change.weight"].T),
        given["change.bias"],
        np.ascontiguousarray(given["half_hidden.weight"].T),
        given["half_hidden.bias"],
        given["half_output.weight"][0],
        given["half_output.bias"],
    )


@compiled
def score(encoded_BD, pause_BD, hidden_BH, nameless_weights):
    """P(the speaker had finished by the end of the frame) (B,), and the next hidden states (B, H)."""
    weights = EndpointWeights(*nameless_weights)
    score_B, after_BH = np.empty(len(encoded_BD), np.float32), np.empty_like(hidden_BH)
    width, projected = hidden_BH.shape[1], len(weights.projection_bias_P)
    input_C = np.empty(len(weights.from_input_CG), np.float32)
    for b in range(len(encoded_BD)):
        input_C[:projected] = tanh(_affine(weights.projection_DP, encoded_BD[b], weights.projection_bias_P))
        for k in range(len(input_C) - projected):
            input_C[projected + k] = np.log1p(pause_BD[b, k]) if COUNTS[k] else pause_BD[b, k]
        from_input_G = _affine(weights.from_input_CG, input_C, weights.bias_2G[0])
        from_hidden_G = _affine(weights.from_hidden_HG, hidden_BH[b], weights.bias_2G[1])
        reset_update = sigmoid(from_input_G[: 2 * width] + from_hidden_G[: 2 * width])
        reset_H, update_H = reset_update[:width], reset_update[width:]
        new_H = tanh(from_input_G[2 * width :] + reset_H * from_hidden_G[2 * width :])
        after_BH[b] = new_H + update_H * (hidden_BH[b] - new_H)
        score_B[b] = _probability(after_BH[b], weights.output_H, weights.output_bias)
    return score_B, after_BH


@compiled
def half_score(change_BF, hidden_BH, nameless_weights):
    """P(the speaker had finished 40 ms after the frame of these hidden states) (B,)."""
    weights = EndpointWeights(*nameless_weights)
    score_B, width = np.empty(len(change_BF), np.float32), hidden_BH.shape[1]
    both_B = np.empty(len(weights.half_hidden_BH), np.float32)
    for b in range(len(change_BF)):
        both_B[:width] = hidden_BH[b]
        both_B[width:] = tanh(_affine(weights.change_FS, change_BF[b], weights.change_bias_S))
        half_H = tanh(_affine(weights.half_hidden_BH, both_B, weights.half_bias_H))
        score_B[b] = _probability(half_H, weights.half_output_H, weights.half_output_bias)
    return score_B


@compiled
def _probability(hidden_H, output_H, bias):
    logit = bias[0]
    for h in range(len(hidden_H)):
        logit += output_H[h] * hidden_H[h]
    return np.float32(1) / (np.float32(1) + np.exp(-logit))


@compiled
def _affine(weight_CR, x_C, bias_R):
    y_R = bias_R.copy()
    for c in range(len(x_C)):
        for r in range(len(y_R)):
            y_R[r] += weight_CR[c, r] * x_C[c]
    return y_R
