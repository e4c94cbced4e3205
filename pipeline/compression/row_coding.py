"""Matrices of integers to bytes: rows of one kind share a frequency table.

Steps are chosen by what rounding costs (`allocation`), so a matrix has fine rows, whose integers spread, beside coarse
ones, most of whose integers are zero; one table for all of them wastes some four percent, and the neighbours in a row
or column tell nothing more. Rows are gathered into kinds by Lloyd's algorithm with bits in the place of distances
(Chou, Lookabaugh & Gray 1989, "Entropy-constrained vector quantization"): each goes to the table that codes it in the
fewest bits, then each table is counted anew.

Payload: bytes of the kinds' payload (4, little endian), each row's kind, then the integers, kind by kind; both as
`entropy_coding` writes them.
"""

import struct
from collections.abc import Sequence

import numpy as np

from pipeline.compression import entropy_coding
from pipeline.compression.entropy_coding import CorruptPayload

MAX_KINDS = 8  # 16 or 24 save one more part in a thousand
TRIED_KINDS = (1, 2, 4, MAX_KINDS)
ROUNDS = 20
PRIOR = 0.05  # counts that a table gives to what its rows lack
SIZE = struct.Struct("<I")


def encode(matrices: Sequence[np.ndarray]) -> bytes:
    """Integer matrices (R, C) -> payload, the smallest over the numbers of kinds. Shapes are not stored."""
    rows = [row for matrix in matrices for row in matrix]
    return min((_payload(matrices, rows, kinds) for kinds in _partitions(rows)), key=len)


def decode(payload: bytes, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Payload and the matrices' shapes -> int32 matrices. Raises CorruptPayload."""
    kind_R, at = _read_kinds(payload, shapes)
    length_R = np.repeat([shape[1] for shape in shapes], [shape[0] for shape in shapes]).astype(int)
    lengths = np.bincount(kind_R, weights=length_R, minlength=MAX_KINDS).astype(int)
    integers = np.concatenate([np.zeros(0, np.int32), *entropy_coding.decode(payload[at:], lengths.tolist())])
    order_R = np.argsort(kind_R, kind="stable")
    starts_R = np.empty(len(kind_R), int)
    starts_R[order_R] = np.cumsum(length_R[order_R]) - length_R[order_R]
    matrices, first = [], 0
    for num_rows, num_columns in shapes:
        start_R = starts_R[first : first + num_rows]
        matrices.append(integers[start_R[:, None] + np.arange(num_columns)])
        first += num_rows
    return matrices


def entropy_bits(payload: bytes, matrices: Sequence[np.ndarray]) -> float:
    """Entropy of the matrices' integers by the kinds of their rows: what the payload's tables aim at, bits."""
    kind_R, _ = _read_kinds(payload, [matrix.shape for matrix in matrices])
    gathered = _gather([row for matrix in matrices for row in matrix], kind_R)
    return sum(entropy_coding.entropy_bits(array) for array in gathered)


def _partitions(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The kind of each row (R,) for each number of kinds: tables of all that is tried."""
    top = max((int(np.abs(row).max()) for row in rows if row.size), default=0)
    count_RL = np.array([np.bincount(row + top, minlength=2 * top + 1) for row in rows], float)
    count_RL = count_RL.reshape(len(rows), 2 * top + 1)
    spread_R = count_RL @ np.abs(np.arange(-top, top + 1)) / np.maximum(1, count_RL.sum(1))
    rank_R = np.empty(len(rows), int)
    rank_R[np.argsort(spread_R, kind="stable")] = np.arange(len(rows))
    return [_lloyd(count_RL, rank_R * kinds // max(1, len(rows)), kinds) for kinds in TRIED_KINDS]


def _lloyd(count_RL: np.ndarray, kind_R: np.ndarray, kinds: int) -> np.ndarray:
    for _ in range(ROUNDS):
        table_KL = np.full((kinds, count_RL.shape[1]), PRIOR)
        np.add.at(table_KL, kind_R, count_RL)
        share_K = (np.bincount(kind_R, minlength=kinds) + PRIOR) / (len(kind_R) + PRIOR * kinds)
        bits_KL = np.log2(table_KL.sum(1, keepdims=True)) - np.log2(table_KL)
        found_R = (count_RL @ bits_KL.T - np.log2(share_K)).argmin(1)
        if (found_R == kind_R).all():
            break
        kind_R = found_R
    return kind_R


def _payload(matrices: Sequence[np.ndarray], rows: Sequence[np.ndarray], kind_R: np.ndarray) -> bytes:
    ends = np.cumsum([len(matrix) for matrix in matrices])[:-1]
    kinds = entropy_coding.encode(np.split(kind_R, ends) if len(matrices) else [])
    return SIZE.pack(len(kinds)) + kinds + entropy_coding.encode(_gather(rows, kind_R))


def _gather(rows: Sequence[np.ndarray], kind_R: np.ndarray) -> list[np.ndarray]:
    """The rows of each kind, one behind the other."""
    empty = np.zeros(0, np.int32)
    return [
        np.concatenate([empty, *(rows[number] for number in np.flatnonzero(kind_R == kind))])
        for kind in range(MAX_KINDS)
    ]


def _read_kinds(payload: bytes, shapes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, int]:
    """(the kind of each row of all matrices, where the integers begin)."""
    if len(payload) < SIZE.size:
        raise CorruptPayload("it ends inside the kinds of its rows")
    (size,) = SIZE.unpack_from(payload)
    at = SIZE.size + size
    if at > len(payload):
        raise CorruptPayload("it ends inside the kinds of its rows")
    kinds = entropy_coding.decode(payload[SIZE.size : at], [shape[0] for shape in shapes])
    kind_R = np.concatenate([np.zeros(0, np.int32), *kinds])
    if kind_R.size and not 0 <= kind_R.min() <= kind_R.max() < MAX_KINDS:
        raise CorruptPayload("a row is of a kind that there is not")
    return kind_R, at
