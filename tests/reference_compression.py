"""Slow, obvious twins of the compression: loops over single numbers, nothing but the definitions."""

import math


def lsq(weight, step, top, grad_output):
    """Rows -> (quantised rows, gradient of weights, gradient of each row's step). Esser et al. 2020."""
    quantised, grad_weight, grad_step = [], [], []
    for row, s, grads in zip(weight, step, grad_output, strict=True):
        quantised.append([])
        grad_weight.append([])
        total = 0.0
        for w, g in zip(row, grads, strict=True):
            v = w / s
            q = min(top, max(-top, round(v)))  # Python and torch both round halves to even
            quantised[-1].append(q * s)
            inside = -top < v < top
            grad_weight[-1].append(g if inside else 0.0)
            total += g * ((q - v) if inside else math.copysign(top, v))
        grad_step.append(total / math.sqrt(len(row) * top))
    return quantised, grad_weight, grad_step


def keep_per_row(row, sparsity):
    """True for the weights that stay: the ceil(sparsity · C) smallest go."""
    dropped = math.ceil(sparsity * len(row) - 1e-9)
    order = sorted(range(len(row)), key=lambda column: (abs(row[column]), column))
    return [column not in order[:dropped] for column in range(len(row))]


def read_varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return value, position


def decode_payload(payload, lengths, offset=1023, total=4096):
    """The entropy coder's payload in plain integers: tables, assignment, then rANS with 32-bit words."""
    count, position = read_varint(payload, 0)
    tables = []
    for _ in range(count):
        first, position = read_varint(payload, position)
        span, position = read_varint(payload, position)
        table = {}
        for symbol in range(first - offset, first - offset + span):
            frequency, position = read_varint(payload, position)
            if frequency:
                table[symbol] = frequency
        tables.append(table)
    chosen = []
    for length in lengths:
        if length:
            number, position = read_varint(payload, position)
        chosen.append(tables[number] if length else None)
    words = [int.from_bytes(payload[i : i + 4], "little") for i in range(position, len(payload), 4)]
    state = 0
    while words and state < 1 << 32:
        state = state << 32 | words.pop()
    arrays = []
    for length, table in zip(lengths, chosen, strict=True):
        symbols = []
        for _ in range(length):
            if len(table) == 1:
                symbols.append(next(iter(table)))
                continue
            slot, start, candidates = state % (1 << 24), 0, iter(table)
            symbol = next(candidates)
            while slot >= start + (width := table[symbol] * ((1 << 24) // total)):
                start, symbol = start + width, next(candidates)
            symbols.append(symbol)
            state = (state >> 24) * width + slot - start
            if state < 1 << 32 and words:
                state = state << 32 | words.pop()
        arrays.append(symbols)
    return arrays


def decode_rows(payload, shapes, max_kinds=8):
    """`row_coding`'s payload: the kind of each row, then each row is what comes next in its kind's integers."""
    size = int.from_bytes(payload[:4], "little")
    kinds = sum(decode_payload(payload[4 : 4 + size], [rows for rows, _ in shapes]), [])
    widths = [columns for rows, columns in shapes for _ in range(rows)]
    lengths = [sum(w for w, k in zip(widths, kinds, strict=True) if k == kind) for kind in range(max_kinds)]
    waiting = [iter(array) for array in decode_payload(payload[4 + size :], lengths)]
    rows = [[next(waiting[kind]) for _ in range(width)] for width, kind in zip(widths, kinds, strict=True)]
    return [[rows.pop(0) for _ in range(count)] for count, _ in shapes]
