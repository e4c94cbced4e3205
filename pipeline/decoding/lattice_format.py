"""A lattice as bytes: six or seven an arc where both sides know the words (as SLF text: ninety), and 45 on top.

    offset  bytes
    0       4       magic "SLAT"
    4       1       version
    5       4       length of everything, little endian
    9       4       CRC32 of the words that both sides know
    13      24      acoustic scores, then bonuses: lowest (float64) and step (float32); step 0: all are the lowest
    37      …       frames, nodes, arcs, words: varints
    …       …       words in order of first use: 1 + index among the known ones, or 0, size and UTF-8
    …       …       arcs: node's last arc or not (1 bit) and nodes skipped; word; time (4 bits of length, then when)
    …       …       one byte of acoustic score for each arc, then one of bonus, where their step is not 0
    end-4   4       CRC32 of everything before

An arc's beginning is told from the end of the first arc that led to its node. Reading checks every number before it is
believed; nothing larger than a few times the data is allocated.
"""

import struct
import zlib
from collections.abc import Sequence

from pipeline.decoding.lattice import Arc, Lattice
from pipeline.errors import UserError

MAGIC, VERSION = b"SLAT", 1
FIXED = struct.Struct("<4sBIIdfdf")
CHECKSUM = struct.Struct("<I")
MAX_BYTES = 1 << 20
MAX_FRAMES = 1 << 20  # 23 hours
MIN_ARC_BYTES = 3
MAX_SCORE = 1e30
LEVELS = 255
INNER_LEVELS = 253  # those that scores take by themselves: one is left at either end for carried rounding
MIN_RANGE = 1e-4  # nats; scores that differ less are stored as one
LONG = 15  # frames; a longer word's length follows as a varint


def write_lattice(lattice: Lattice, words: Sequence[str] | None = None) -> bytes:
    """Lattice -> bytes, the same on every machine; `words`: those that the reader will know as well.

    Scores become multiples of 1/253 of their range, rounded so that the errors of a path's arcs cancel. Raises
    ValueError for what the format cannot hold.
    """
    known = {word: number for number, word in reversed(list(enumerate(words or ())))}
    index: dict[str, int] = {}
    out, body = bytearray(), bytearray()
    time = _Clock(lattice.num_nodes)
    if not all(0 <= arc.start_frame <= arc.end_frame <= lattice.num_frames for arc in lattice.arcs):
        raise ValueError("an arc's frames are not within the lattice's")
    for arc, after in zip(lattice.arcs, [*lattice.arcs[1:], None], strict=True):
        is_last = after is None or after.source != arc.source
        _put(body, 2 * (arc.target - arc.source - 1) + is_last)
        _put(body, index.setdefault(arc.word, len(index)))
        shift, length = arc.start_frame - time.of(arc.source), arc.end_frame - arc.start_frame
        _put(body, (2 * shift if shift >= 0 else -2 * shift - 1) << 4 | min(length, LONG))
        if length >= LONG:
            _put(body, length - LONG)
        time.arrive(arc)
    for number in (lattice.num_frames, lattice.num_nodes, len(lattice.arcs), len(index)):
        _put(out, number)
    for word in index:
        _put(out, known.get(word, -1) + 1)
        if word not in known:
            _put(out, len(word.encode()))
            out += word.encode()
    *acoustic, acoustic_codes = _quantise(lattice, [arc.acoustic for arc in lattice.arcs])
    *bonus, bonus_codes = _quantise(lattice, [arc.bonus for arc in lattice.arcs])
    rest = bytes(out + body) + acoustic_codes + bonus_codes
    size = FIXED.size + len(rest) + CHECKSUM.size
    if size > MAX_BYTES or lattice.num_frames > MAX_FRAMES:
        raise ValueError(f"a lattice of {size} bytes and {lattice.num_frames} frames is too large; prune it")
    data = FIXED.pack(MAGIC, VERSION, size, _table_check(words), *acoustic, *bonus) + rest
    return data + CHECKSUM.pack(zlib.crc32(data))


def read_lattice(data: bytes, words: Sequence[str] | None = None) -> Lattice:
    """What `write_lattice` wrote with the same `words`. Raises UserError for any other bytes or words."""
    if len(data) > MAX_BYTES:
        raise UserError(f"lattice: {len(data)} bytes are more than a lattice may have ({MAX_BYTES})")
    if data[: len(MAGIC)] != MAGIC:
        raise UserError(f"lattice: its magic is not {MAGIC.decode()}, so this is no lattice")
    if len(data) < FIXED.size + CHECKSUM.size:
        raise UserError("lattice: it ends inside the header, so it was cut off")
    _, version, size, table_check, *scales = FIXED.unpack_from(data)
    if version != VERSION:
        raise UserError(f"lattice: it has version {version}; this program reads version {VERSION}")
    if size != len(data):
        raise UserError(f"lattice: it has {len(data)} bytes where its header says {size}")
    if zlib.crc32(data[: -CHECKSUM.size]) != CHECKSUM.unpack(data[-CHECKSUM.size :])[0]:
        raise UserError("lattice: its checksum is wrong, so bytes were changed on the way")
    if table_check != _table_check(words):
        raise UserError("lattice: it was written with other known words than it is read with")
    reader = _Reader(data[FIXED.size : -CHECKSUM.size])
    num_frames = reader.number(MAX_FRAMES)
    num_nodes, num_arcs = reader.number(reader.left()), reader.number(reader.left() // MIN_ARC_BYTES)
    if not 2 <= num_nodes <= num_arcs + 1:
        raise UserError(f"lattice: {num_arcs} arcs cannot join {num_nodes} nodes")
    index = [_word(reader, words or ()) for _ in range(reader.number(reader.left()))]
    arcs = _arcs(reader, num_frames, num_nodes, num_arcs, index)
    acoustic, bonus = (_scores(reader, low, step, num_arcs) for low, step in (scales[:2], scales[2:]))
    if reader.left():
        raise UserError(f"lattice: {reader.left()} bytes follow its last arc")
    scored = (arc._replace(acoustic=a, bonus=b) for arc, a, b in zip(arcs, acoustic, bonus, strict=True))
    return Lattice(num_nodes, num_frames, tuple(scored))


def _arcs(
    reader: "_Reader", num_frames: int, num_nodes: int, num_arcs: int, index: Sequence[str]
) -> list[Arc]:
    arcs: list[Arc] = []
    time, source = _Clock(num_nodes), 0
    for _ in range(num_arcs):
        if source and not time.known(source):
            raise UserError(f"lattice: no arc leads to its node {source}")
        code = reader.number(2 * num_nodes)
        target = source + 1 + code // 2
        if target >= num_nodes:
            raise UserError(f"lattice: an arc leaves node {source} for node {target} of {num_nodes}")
        word = index[reader.number(len(index) - 1)]
        when = reader.number(64 * MAX_FRAMES)
        shift, length = when >> 4, when & LONG
        if length == LONG:
            length += reader.number(MAX_FRAMES)
        start = time.of(source) + (-(shift + 1) // 2 if shift & 1 else shift // 2)
        if not 0 <= start <= start + length <= num_frames:
            raise UserError(f"lattice: an arc's frames are not within its {num_frames}")
        arcs.append(Arc(source, target, word, 0.0, 0.0, start, start + length))
        time.arrive(arcs[-1])
        source += code & 1
    if source != num_nodes - 1 or not time.known(source):
        raise UserError(f"lattice: its arcs leave {source} nodes where there are {num_nodes}")
    return arcs


def _word(reader: "_Reader", words: Sequence[str]) -> str:
    number = reader.number(len(words))
    if number:
        return words[number - 1]
    try:
        return reader.take(reader.number(reader.left())).decode()
    except UnicodeDecodeError as error:
        raise UserError("lattice: one of its words is not UTF-8") from error


def _scores(reader: "_Reader", low: float, step: float, num_arcs: int) -> list[float]:
    if not (abs(low) <= MAX_SCORE and 0 <= step <= MAX_SCORE):
        raise UserError("lattice: the scale of its scores is no possible number")
    return [low + step * code for code in (reader.take(num_arcs) if step else bytes(num_arcs))]


def _quantise(lattice: Lattice, values: Sequence[float]) -> tuple[float, float, bytes]:
    """Lowest value, step, a byte for each value; no bytes and step 0 if all are alike.

    Each node carries the rounding error of the first path that reached it, and the next arc makes up for it: of a
    path's sum only arcs into nodes that were reached before are wrong, each by half a step at most.
    """
    if not all(abs(value) <= MAX_SCORE for value in values):
        raise ValueError("a lattice's scores must be finite")
    low, high = min(values) + 0.0, max(values)  # no negative zero
    if high - low < MIN_RANGE:
        return low, 0.0, b""
    step = struct.unpack("<f", struct.pack("<f", (high - low) / INNER_LEVELS))[0]
    low -= step
    error: list[float | None] = [0.0] + [None] * (lattice.num_nodes - 1)
    codes = bytearray()
    for arc, value in zip(lattice.arcs, values, strict=True):
        before, after = error[arc.source] or 0.0, error[arc.target]
        codes.append(min(LEVELS, max(0, round((value - before + (after or 0.0) - low) / step))))
        if after is None:
            error[arc.target] = before + low + step * codes[-1] - value
    return low, step, bytes(codes)


def _table_check(words: Sequence[str] | None) -> int:
    return zlib.crc32("\n".join(words or ()).encode())


def _put(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


class _Clock:
    """When each node is: the end of the first arc that led to it."""

    def __init__(self, num_nodes: int):
        self._frame = [0] + [-1] * (num_nodes - 1)

    def arrive(self, arc: Arc) -> None:
        if self._frame[arc.target] < 0:
            self._frame[arc.target] = arc.end_frame

    def known(self, node: int) -> bool:
        return self._frame[node] >= 0

    def of(self, node: int) -> int:
        return self._frame[node]


class _Reader:
    """Varints of at most five bytes, each checked against its largest value, and runs of bytes."""

    def __init__(self, data: bytes):
        self._data, self._position = data, 0

    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, size: int) -> bytes:
        if size > self.left():
            raise UserError("lattice: it ends before its last arc does")
        self._position += size
        return self._data[self._position - size : self._position]

    def number(self, largest: int) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > largest:
                    raise UserError(f"lattice: it says {value} where at most {largest} is possible")
                return value
        raise UserError("lattice: one of its numbers is too long")
