"""Integers to bytes and back at their entropy: static frequency tables and constriction's ANS coder.

Payload: the tables, the table of each array, then one ANS stream for all arrays. Decoding depends on stored
integers alone: frequencies add up to 4096 and reach the coder as integers below 2^24, which float64 holds
exactly, so that its 24-bit fixed-point model is the same on every machine (`tests/reference_compression.py`
decodes it in plain Python).
Tables are merged as long as that makes the payload smaller, from one per array down to one for all.
"""

import lzma
from collections.abc import Sequence
from itertools import combinations

import constriction
import numpy as np
import zstandard

TOTAL = 4096  # frequencies of a table add up to this
PRECISION = 24  # bits of constriction's default coder
MAX_SYMBOL = 1023  # |integer| that a table may hold
MAX_TABLES = 4096


class CorruptPayload(ValueError):
    """These bytes are no payload of `encode`."""


def encode(arrays: Sequence[np.ndarray]) -> bytes:
    """1-D integer arrays -> payload. The arrays' lengths are not stored: `decode` is told."""
    filled = [array.astype(np.int32) for array in arrays if array.size]
    if any(int(np.abs(array).max()) > MAX_SYMBOL for array in filled):
        raise ValueError(f"integers beyond ±{MAX_SYMBOL} cannot be coded")
    groups = _merge([np.bincount(array + MAX_SYMBOL, minlength=2 * MAX_SYMBOL + 1) for array in filled])
    tables = [_normalise(count_N) for count_N, _ in groups]
    table_of = {member: number for number, (_, members) in enumerate(groups) for member in members}
    coder = constriction.stream.stack.AnsCoder()
    for member in reversed(range(len(filled))):  # a stack: last in, first out
        frequencies_N = tables[table_of[member]]
        present = np.flatnonzero(frequencies_N)
        if len(present) > 1:
            positions = np.searchsorted(present, filled[member] + MAX_SYMBOL).astype(np.int32)
            coder.encode_reverse(positions, _model(frequencies_N[present]))
    numbers = [len(tables)]
    for frequencies_N in tables:
        numbers += _table_numbers(frequencies_N)
    numbers += [table_of[member] for member in range(len(filled))]
    return _varints(numbers) + coder.get_compressed().astype("<u4").tobytes()


def decode(payload: bytes, lengths: Sequence[int]) -> list[np.ndarray]:
    """Payload and the arrays' lengths -> int32 arrays. Raises CorruptPayload."""
    reader = _Reader(payload)
    tables = [_read_table(reader) for _ in range(reader.number(MAX_TABLES))]
    table_of = [reader.number(len(tables) - 1) if length else None for length in lengths]
    rest = payload[reader.position :]
    if len(rest) % 4:
        raise CorruptPayload("its stream is not a whole number of words")
    try:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(rest, "<u4").astype(np.uint32))
    except ValueError as error:
        raise CorruptPayload("its stream ends in a zero word") from error
    arrays = []
    for length, number in zip(lengths, table_of, strict=True):
        if number is None:
            arrays.append(np.zeros(0, np.int32))
            continue
        symbols, frequencies = tables[number]
        if len(symbols) == 1:
            arrays.append(np.full(length, symbols[0], np.int32))
        else:
            arrays.append(symbols[coder.decode(_model(frequencies), length)])
    if not coder.is_empty():
        raise CorruptPayload("its stream holds more than its symbols")
    return arrays


def entropy_bits(array: np.ndarray) -> float:
    """Zeroth-order entropy of all the integers together, bits."""
    if array.size == 0:
        return 0.0
    count = np.unique(array, return_counts=True)[1]
    return float(-(count * np.log2(count / array.size)).sum())


def general_coders(arrays: Sequence[np.ndarray]) -> dict[str, int]:
    """The control: bytes of the matrices' integers, one in a byte, under zstd and xz."""
    codes = b"".join(array.astype("i1").tobytes() for array in arrays if array.ndim == 2)
    return {
        "zstd": len(zstandard.ZstdCompressor(level=19).compress(codes)),
        "xz": len(lzma.compress(codes, preset=9)),
    }


def _model(frequencies: np.ndarray):
    # constriction gives every symbol one part in 2^24 beforehand and scales the rest by
    # (2^24 - n) / sum, which is exactly 1 here.
    weights = frequencies.astype(np.float64) * ((1 << PRECISION) // TOTAL) - 1
    return constriction.stream.model.Categorical(weights, perfect=False)


def _normalise(count_N: np.ndarray) -> np.ndarray:
    """Frequencies, at least 1 where something was counted, that add up to TOTAL, close to the counts."""
    exact_N = count_N * TOTAL / count_N.sum()
    frequencies_N = np.where(count_N > 0, np.maximum(1, np.floor(exact_N)), 0).astype(np.int64)
    missing = TOTAL - int(frequencies_N.sum())
    if missing > 0:
        frequencies_N[np.argsort(frequencies_N - exact_N, kind="stable")[:missing]] += 1
    for _ in range(-missing):  # many rare symbols were lifted to 1: the most frequent ones pay
        frequencies_N[int(frequencies_N.argmax())] -= 1
    return frequencies_N


def _merge(counts: Sequence[np.ndarray]) -> list[tuple[np.ndarray, list[int]]]:
    """(common counts, members): join the pair whose joint table saves most bits, until none saves any."""
    groups = {number: (count_N, [number]) for number, count_N in enumerate(counts)}
    cost = {number: _cost_bits(count_N) for number, count_N in enumerate(counts)}
    saving: dict[tuple[int, int], float] = {}
    while True:
        for left, right in combinations(groups, 2):
            if (left, right) not in saving:
                together = _cost_bits(groups[left][0] + groups[right][0])
                saving[left, right] = cost[left] + cost[right] - together
        pairs = [pair for pair in combinations(groups, 2) if saving[pair] > 0]
        if not pairs:
            return list(groups.values())
        (left_N, left_members), (right_N, right_members) = (groups.pop(n) for n in max(pairs, key=saving.get))
        number = len(cost)
        groups[number] = (left_N + right_N, sorted(left_members + right_members))
        cost[number] = _cost_bits(left_N + right_N)


def _cost_bits(count_N: np.ndarray) -> float:
    """Bits of the symbols under their table, and of the table."""
    frequencies_N = _normalise(count_N)
    present = count_N > 0
    coded = float((count_N[present] * np.log2(TOTAL / frequencies_N[present])).sum())
    return coded + 8 * len(_varints(_table_numbers(frequencies_N)))


def _table_numbers(frequencies_N: np.ndarray) -> list[int]:
    """Where the table begins, its span, then a frequency for each symbol of the span."""
    present = np.flatnonzero(frequencies_N)
    first, last = int(present[0]), int(present[-1])
    return [first, last - first + 1, *frequencies_N[first : last + 1].tolist()]


def _read_table(reader: "_Reader") -> tuple[np.ndarray, np.ndarray]:
    """(symbols, their frequencies)."""
    first, span = reader.number(2 * MAX_SYMBOL), reader.number(2 * MAX_SYMBOL + 1)
    frequencies_N = np.array([reader.number(TOTAL) for _ in range(span)], np.int64)
    if frequencies_N.sum() != TOTAL or first + span > 2 * MAX_SYMBOL + 1:
        raise CorruptPayload(f"a frequency table does not add up to {TOTAL} or leaves its range")
    present = np.flatnonzero(frequencies_N)
    return (present + first - MAX_SYMBOL).astype(np.int32), frequencies_N[present]


def _varints(numbers: Sequence[int]) -> bytes:
    out = bytearray()
    for number in numbers:
        while number >= 0x80:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


class _Reader:
    """Varints of at most three bytes, each checked against its largest value."""

    def __init__(self, payload: bytes):
        self.payload, self.position = payload, 0

    def number(self, largest: int) -> int:
        value = 0
        for shift in (0, 7, 14):
            if self.position >= len(self.payload):
                raise CorruptPayload("it ends inside a frequency table")
            byte = self.payload[self.position]
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > largest:
                    raise CorruptPayload(f"a number in its tables is {value}, more than {largest}")
                return value
        raise CorruptPayload("a number in its tables is too long")
