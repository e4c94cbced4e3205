"""Encoder, predictor, joiner and greedy search of a packed LSTM transducer as one compiled function.

The arithmetic of models/lstm_encoder.py, predictor.py, joiner.py and decoding/greedy.py on integers (see
fast_weights.py), one 80 ms frame after the other, so that results do not depend on how many come at once.
No array that is given is changed. Twin: runtime/recogniser.py; `tests/test_fast_step.py` compares them.
"""

import numpy as np

from pipeline.decoding.token_lattice import BLANK_ID
from pipeline.features.frames import FEATURES_PER_FRAME
from pipeline.runtime.fast_convolution import compiled, convolve
from pipeline.runtime.fast_weights import ConvolutionWeights, EncoderWeights, Matrix

NORM_EPSILON = np.float32(1e-5)  # of torch's LayerNorm
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
TANH_ONE = np.float32(7.90531110763549805)  # from here on tanh is 1 in float32
TANH_ABOVE = tuple(
    np.float32(value)
    for value in (
        -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
        1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
    )
)  # fmt: skip
TANH_BELOW = tuple(
    np.float32(value)
    for value in (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
)
EXP_ABOVE = tuple(
    np.float32(value)
    for value in (
        1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
    )
)  # fmt: skip
LOG2_E, LN_2_HIGH, LN_2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST = np.float32(-87)  # below, exp is no normal float32
TO_INTEGER = np.float32(1.5 * 2**23)  # a float32 to which this is added has its integer in the last bits
MANTISSA_BITS, BITS_OF_ONE = 23, 127 << 23
LANES = 16  # of float32 in a register


@compiled
def advance(features_NF, first_searched, hidden_LD, cell_LD, predicted_J, context_2, weights):
    """N // 8 frames of 80 ms; those before `first_searched` are heard, not searched.

    Returns (symbol_T int64, log_prob_T float32, hidden_LD, cell_LD, predicted_J, context_2): blank where nothing was
    emitted or searched; `predicted_J` is the predictor's part of the joiner's sum after `context_2`.
    """
    num_frames = len(features_NF) // FEATURES_PER_FRAME
    symbol_T, log_prob_T = np.zeros(num_frames, np.int64), np.zeros(num_frames, np.float32)
    hidden_LD, cell_LD, context_2 = hidden_LD.copy(), cell_LD.copy(), context_2.copy()
    for t in range(num_frames):
        frame_NF = features_NF[t * FEATURES_PER_FRAME : (t + 1) * FEATURES_PER_FRAME]
        encoded_D = _encode(frame_NF, hidden_LD, cell_LD, weights.encoder)
        if t < first_searched:
            continue
        symbol_T[t], log_prob_T[t] = _best_symbol(encoded_D, predicted_J, weights.search)
        if symbol_T[t] != BLANK_ID:
            context_2[0], context_2[1] = context_2[1], symbol_T[t]
            predicted_J = predict(context_2, weights.search)
    return symbol_T, log_prob_T, hidden_LD, cell_LD, predicted_J, context_2


@compiled
def encode(features_BNF, state_B2LD, nameless_weights):
    """One frame of 80 ms of each of B streams -> (encoded_BD, state_B2LD), of each what it is alone.

    A state is hidden and cell; `nameless_weights`: EncoderWeights.
    """
    statistics, given, first, first_bias, from_input, from_hidden, scales, biases, norms = nameless_weights
    convolutions, matrix = ConvolutionWeights(given[0], given[1], given[2]), Matrix(first[0], first[1])
    weights = EncoderWeights(
        statistics, convolutions, matrix, first_bias, from_input, from_hidden, scales, biases, norms
    )
    state_B2LD = state_B2LD.copy()
    encoded_BD = np.empty((len(features_BNF), state_B2LD.shape[3]), np.float32)
    for b in range(len(features_BNF)):
        encoded_BD[b] = _encode(features_BNF[b], state_B2LD[b, 0], state_B2LD[b, 1], weights)
    return encoded_BD, state_B2LD


@compiled
def predict(context_2, weights):
    """The predictor's part of the joiner's sum (J,) after the last two tokens."""
    older_P, newer_P = weights.mixed_2VP[0, context_2[0]], weights.mixed_2VP[1, context_2[1]]
    return product(weights.predictor_projection, tanh(older_P + newer_P))


@compiled
def _encode(frame_NF, hidden_LD, cell_LD, weights):
    """One frame of eight feature rows -> encoded_D; hidden and cell are moved on in place."""
    normalised_NF = (frame_NF - weights.statistics_2F[0]) * weights.statistics_2F[1]
    x_D = product(weights.input, convolve(normalised_NF, weights.convolutions)) + weights.input_bias_I
    for layer in range(len(hidden_LD)):
        _lstm(layer, x_D, hidden_LD[layer], cell_LD[layer], weights)
        y_D = hidden_LD[layer].copy() if layer == 0 else x_D + hidden_LD[layer]
        x_D = _normalise(y_D, weights.norms_L2D[layer])
    return x_D


@compiled
def _lstm(layer, x_C, hidden_D, cell_D, weights):
    """One step of one layer; hidden and cell are moved on in place."""
    width = len(hidden_D)
    from_input_G, from_hidden_G = np.zeros(4 * width, np.float32), np.zeros(4 * width, np.float32)
    _accumulate(weights.from_input_LIG[layer], x_C, from_input_G)
    _accumulate(weights.from_hidden_LDG[layer], hidden_D, from_hidden_G)
    scale_2G, bias_G = weights.gates_scale_L2G[layer], weights.gates_bias_LG[layer]
    gates_G = from_input_G * scale_2G[0] + from_hidden_G * scale_2G[1] + bias_G
    i_D, f_D = sigmoid(gates_G[:width]), sigmoid(gates_G[width : 2 * width])
    g_D, o_D = tanh(gates_G[2 * width : 3 * width]), sigmoid(gates_G[3 * width :])
    cell_D[:] = f_D * cell_D + i_D * g_D
    hidden_D[:] = o_D * tanh(cell_D)


@compiled
def _normalise(x_D, norm_2D):
    count = np.float32(len(x_D))
    total = ZERO
    for value in x_D:
        total += value
    mean, squares = total / count, ZERO
    for value in x_D:
        squares += (value - mean) * (value - mean)
    scale = ONE / np.sqrt(squares / count + NORM_EPSILON)
    return (x_D - mean) * scale * norm_2D[0] + norm_2D[1]


@compiled
def _best_symbol(encoded_D, predicted_J, weights):
    """(most probable symbol, its log-probability) of one frame."""
    projected_J = product(weights.encoder_projection, encoded_D) + weights.encoder_projection_bias_J
    logit_V = product(weights.output, tanh(projected_J + predicted_J)) + weights.output_bias_V
    best = np.argmax(logit_V)
    return best, logit_V[best] - log_sum_exp(logit_V.reshape(1, -1))[0]


@compiled
def product(matrix, x_C):
    """Matrix times vector (R,)."""
    y_R = np.zeros(len(matrix.scale_R), np.float32)
    _accumulate(matrix.integers_CR, x_C, y_R)
    return y_R * matrix.scale_R


@compiled
def product_many(matrix, x_SC):
    """`product` of each of S vectors, within rounding: four at a time, so that an integer is made a float only once."""
    num_vectors, num_columns = x_SC.shape
    y_SR = np.zeros((num_vectors, len(matrix.scale_R)), np.float32)
    whole = num_vectors // 4 * 4
    for s in range(0, whole, 4):
        a_R, b_R, p_R, q_R = y_SR[s], y_SR[s + 1], y_SR[s + 2], y_SR[s + 3]
        a_C, b_C, p_C, q_C = x_SC[s], x_SC[s + 1], x_SC[s + 2], x_SC[s + 3]
        for c in range(0, num_columns - 1, 2):
            first_R, second_R = matrix.integers_CR[c], matrix.integers_CR[c + 1]
            xa, xb, xp, xq = a_C[c], b_C[c], p_C[c], q_C[c]
            za, zb, zp, zq = a_C[c + 1], b_C[c + 1], p_C[c + 1], q_C[c + 1]
            for r in range(len(a_R)):
                first, second = np.float32(first_R[r]), np.float32(second_R[r])
                a_R[r] += first * xa + second * za
                b_R[r] += first * xb + second * zb
                p_R[r] += first * xp + second * zp
                q_R[r] += first * xq + second * zq
        if num_columns % 2:
            for s_last in range(s, s + 4):
                _accumulate(
                    matrix.integers_CR[num_columns - 1 :], x_SC[s_last, num_columns - 1 :], y_SR[s_last]
                )
    for s in range(whole, num_vectors):
        _accumulate(matrix.integers_CR, x_SC[s], y_SR[s])
    return y_SR * matrix.scale_R


@compiled
def _accumulate(integers_CR, x_C, y_R):
    """y_R += Σ_C integers_CR x_C, four columns at a time: y is read and written a quarter as often."""
    whole = len(x_C) // 4 * 4
    for c in range(0, whole, 4):
        a, b, p, q = x_C[c], x_C[c + 1], x_C[c + 2], x_C[c + 3]
        a_R, b_R, p_R, q_R = integers_CR[c], integers_CR[c + 1], integers_CR[c + 2], integers_CR[c + 3]
        for r in range(len(y_R)):
            pair = np.float32(a_R[r]) * a + np.float32(b_R[r]) * b
            y_R[r] += pair + (np.float32(p_R[r]) * p + np.float32(q_R[r]) * q)
    for c in range(whole, len(x_C)):
        a, a_R = x_C[c], integers_CR[c]
        for r in range(len(y_R)):
            y_R[r] += np.float32(a_R[r]) * a


@compiled
def sigmoid(x_D):
    return HALF * tanh(HALF * x_D) + HALF


@compiled
def tanh(x_D):
    """Within 3e-7 of tanh: a quotient of polynomials, which vectorises where the library's function does not.

    Coefficients: Eigen's `ptanh_float`.
    """
    y_D = np.empty(len(x_D), np.float32)
    for d in range(len(x_D)):
        x = min(max(x_D[d], -TANH_ONE), TANH_ONE)
        square = x * x
        above = TANH_ABOVE[0]
        for coefficient in TANH_ABOVE[1:]:
            above = above * square + coefficient
        below = TANH_BELOW[0]
        for coefficient in TANH_BELOW[1:]:
            below = below * square + coefficient
        y_D[d] = x * above / below
    return y_D


@compiled
def log_sum_exp(x_SV):
    """log Σ exp x of each row (S,), within 2e-6. Sixteen sums at a time: a single one would wait for each addition."""
    num_rows, num_columns = x_SV.shape
    whole = num_columns // LANES * LANES
    sum_S = np.empty(num_rows, np.float32)
    y_V, power_V = np.empty(num_columns, np.float32), np.empty(num_columns, np.float32)
    part_L = np.empty(LANES, np.float32)
    for s in range(num_rows):
        x_V, total = x_SV[s], ZERO
        part_L[:] = x_V[0]
        for v in range(0, whole, LANES):
            for lane in range(LANES):
                part_L[lane] = x_V[v + lane] if x_V[v + lane] > part_L[lane] else part_L[lane]
        highest = part_L.max()
        for x in x_V[whole:]:
            highest = x if x > highest else highest
        _exp(x_V, highest, y_V, power_V)
        part_L[:] = ZERO
        for v in range(0, whole, LANES):
            for lane in range(LANES):
                part_L[lane] += y_V[v + lane] * power_V[v + lane]
        for part in part_L:
            total += part
        for v in range(whole, num_columns):
            total += y_V[v] * power_V[v]
        sum_S[s] = highest + np.log(total)
    return sum_S


@compiled
def _exp(x_D, shift, y_D, power_D):
    """exp(x - shift), at most exp 80, within 2e-7 of it, as y times power: a polynomial and a power of two.

    Coefficients: Cephes' `expf`.
    """
    for d in range(len(x_D)):
        x = x_D[d] - shift
        x = x if x > LOWEST else LOWEST
        power_D[d] = x * LOG2_E + TO_INTEGER
        power = power_D[d] - TO_INTEGER
        rest = x - power * LN_2_HIGH - power * LN_2_LOW
        above = EXP_ABOVE[0]
        for coefficient in EXP_ABOVE[1:]:
            above = above * rest + coefficient
        y_D[d] = above * (rest * rest) + rest + ONE
    bits_D = power_D.view(np.int32)
    for d in range(len(x_D)):
        bits_D[d] = (bits_D[d] << MANTISSA_BITS) + BITS_OF_ONE
