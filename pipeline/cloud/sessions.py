"""What the service remembers of a stream, so that messages may come twice, late and out of order.

(turn, revision) only rises on the device. A speculation that is not newer than the newest number seen is late and
changes nothing; the same one again gets the same answer. A final is another matter: it is answered however late it
comes, once for each turn. Values go in and out; nothing is changed in place.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.cloud.wire import MAX_NUMBER, Answer

MEMORY_TURNS = 16  # how many finished turns a stream's answers are kept for

Key = tuple[int, int]  # turn, revision


class Verdict(StrEnum):
    NEW = "new"
    REPEATED = "repeated"
    LATE = "late"
    CONTRADICTORY = "contradictory"


@dataclass(frozen=True)
class Stored:
    """An answer, the digest of the lattice that it is to, and whether the turn ended with it."""

    digest: bytes
    answer: Answer
    adopted: bool = False


@dataclass(frozen=True)
class Session:
    """`newest`: the highest (turn, revision) that a lattice came for; up to `closed` no speculation is taken any more;
    `answers`: those that may still be asked for.
    """

    newest: Key = (0, 0)
    closed: Key = (0, 0)
    answers: Mapping[Key, Stored] = field(default_factory=dict)


def judge(session: Session, key: Key, digest: bytes, final: bool) -> Verdict:
    """What a lattice for `key` is to this session."""
    stored = session.answers.get(key)
    if stored is not None:
        return Verdict.REPEATED if stored.digest == digest else Verdict.CONTRADICTORY
    if final:
        finished = any(each.adopted and turn == key[0] for (turn, _), each in session.answers.items())
        return Verdict.CONTRADICTORY if finished else Verdict.NEW
    return Verdict.LATE if key < session.newest or key <= session.closed else Verdict.NEW


def announce(session: Session, key: Key) -> Session:
    """A lattice for `key` has come: older speculations are late from now on, though its answer is not there yet."""
    return dataclasses.replace(session, newest=max(session.newest, key))


def remember(session: Session, key: Key, stored: Stored) -> Session:
    """Keep the answer to what was judged new or repeated; the turn's other speculations are out of date."""
    answers = {other: each for other, each in session.answers.items() if each.adopted or other[0] != key[0]}
    answers[key] = stored
    turns = sorted({turn for turn, _ in answers})[-MEMORY_TURNS:]
    kept = {other: each for other, each in answers.items() if other[0] in turns}
    closed = max(session.closed, (key[0], MAX_NUMBER)) if stored.adopted else session.closed
    return Session(max(session.newest, key), closed, kept)


def revise(session: Session, key: Key) -> Session:
    """Forget the speculations up to `key`; none of them is taken any more."""
    answers = {other: each for other, each in session.answers.items() if each.adopted or other > key}
    return Session(session.newest, max(session.closed, key), answers)


def adopt(session: Session, key: Key) -> tuple[Session, bool]:
    """The turn ended with the answer to `key`: no speculation of it is taken any more. False if there is no answer."""
    stored = session.answers.get(key)
    if stored is None:
        return session, False
    return remember(session, key, dataclasses.replace(stored, adopted=True)), True
