"""Slow, obvious twins of the allocation: every weight by itself, every price of a bit one after the other."""

import math
from collections import Counter


def zeros(weights, sensitivities, sparsity):
    """{matrix: share}: again and again the matrix whose rows lose their next smallest weight at the least cost."""
    count = sum(len(rows) * len(rows[0]) for rows in weights.values())
    lost, gone = dict.fromkeys(weights, 0), 0
    prices = {name: _prices(weights[name], sensitivities[name]) for name in weights}
    while gone < sparsity * count - 1e-6:
        name = min((n for n in weights if lost[n] < len(prices[n])), key=lambda n: prices[n][lost[n]])
        lost[name] += 1
        gone += len(weights[name])
    return {name: lost[name] / len(prices[name]) for name in weights}


def _prices(rows, sensitivities):
    """What the k-th weight costs, a row on average; never less than one before it."""
    prices = [0.0] * len(rows[0])
    for row, felt in zip(rows, sensitivities, strict=True):
        order = sorted(range(len(row)), key=lambda column: (abs(row[column]), column))
        for k, column in enumerate(order):
            prices[k] += felt[column] * row[column] ** 2 / len(rows)
    return [max(prices[: k + 1]) for k in range(len(prices))]


def rounded(row, step, top):
    return [min(top, max(-top, round(w / step))) for w in row]


def row_cost(row, sensitivity, step, top):
    return sensitivity * sum((q * step - w) ** 2 for q, w in zip(rounded(row, step, top), row, strict=True))


def entropy(integers):
    """Bits a symbol."""
    counts = Counter(integers)
    return -sum(n / len(integers) * math.log2(n / len(integers)) for n in counts.values())


def matrix_bits(rows, steps, top):
    return entropy([q for row, step in zip(rows, steps, strict=True) for q in rounded(row, step, top)])


def least_cost(rows, sensitivities, candidates, top, bits):
    """Least cost of a matrix over a fine scan of prices of a bit, where it stays within `bits` a weight."""
    least = math.inf
    for k in range(-400, 200):
        chosen = []
        for row, felt, steps in zip(rows, sensitivities, candidates, strict=True):
            chosen.append(
                min(
                    steps,
                    key=lambda s: (
                        row_cost(row, felt, s, top)
                        + 10 ** (k / 25) * len(row) * entropy(rounded(row, s, top))
                    ),
                )
            )
        if matrix_bits(rows, chosen, top) <= bits:
            parts = zip(rows, sensitivities, chosen, strict=True)
            least = min(least, sum(row_cost(row, felt, step, top) for row, felt, step in parts))
    return least
