"""What device and cloud agree on: addresses, the lattice's media type, sizes, and the answer as JSON.

    POST   /v1/streams/{stream_id}/turns/{turn}/revisions/{revision}          a lattice -> an answer
           ?final=true: the turn ended with these words; answered however late it comes
    POST   /v1/streams/{stream_id}/turns/{turn}/revisions/{revision}/adopt    the turn ended with this answer
    POST   /v1/streams/{stream_id}/turns/{turn}/revisions/{revision}/revise   forget this answer and those before it
    DELETE /v1/streams/{stream_id}                                            reset: forget the stream
    GET    /health

All may be sent again without harm. What is wrong comes back as `{"reason": "..."}` with a status of 400 to 499.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pipeline.corpus.tokenizer import SPACE
from pipeline.decoding.lattice import Lattice, best_path
from pipeline.decoding.lattice_format import read_lattice
from pipeline.errors import UserError

MEDIA_TYPE = "application/vnd.sotto.lattice"
STREAM_ID = r"[A-Za-z0-9_-]{1,64}"
MAX_NUMBER = 2**31 - 1  # of turns and revisions
MAX_BODY_BYTES = 64 * 1024  # a lattice has one or two thousand bytes
MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Hypothesis:
    """`score` in nats; `probability`: its share among the hypotheses that were ranked."""

    text: str
    score: float
    probability: float


@dataclass(frozen=True)
class Answer:
    """`n_best`: best first, `text` is the first's; `source`: "cloud", or "device" after a fall-back (no n-best)."""

    turn: int
    revision: int
    text: str
    n_best: tuple[Hypothesis, ...] = ()
    intent: str | None = None
    intent_probability: float = 0.0
    source: str = "cloud"


@dataclass(frozen=True)
class Ranked:
    """What a second pass makes of a lattice: at least one hypothesis, the best first."""

    n_best: tuple[Hypothesis, ...]
    intent: str | None = None
    intent_probability: float = 0.0


class Ranker(Protocol):
    """A second pass. `words`: those that lattices may name by number."""

    @property
    def words(self) -> Sequence[str]: ...

    def rank(self, lattice: Lattice) -> Ranked: ...


def revision_path(stream_id: str, turn: int, revision: int, verb: str = "") -> str:
    """The address of a revision, or of a `verb` for it: adopt, revise. Raises ValueError for impossible ids."""
    if not re.fullmatch(STREAM_ID, stream_id) or not all(
        0 <= number <= MAX_NUMBER for number in (turn, revision)
    ):
        raise ValueError(
            f"no stream may be called {stream_id!r}, or have turn {turn} and revision {revision}"
        )
    return f"/v1/streams/{stream_id}/turns/{turn}/revisions/{revision}" + (f"/{verb}" if verb else "")


def known_words(pieces: Sequence[str]) -> list[str]:
    """Words that both sides know since they have the same tokenizer: its pieces that are whole words."""
    return [piece[1:] for piece in pieces if piece.startswith(SPACE) and len(piece) > 1]


def read_sent_lattice(data: bytes, words: Sequence[str]) -> Lattice:
    """A lattice written with `words` as known ones, or with none. Raises UserError for any other bytes."""
    try:
        return read_lattice(data, words)
    except UserError as error:
        try:
            return read_lattice(data)
        except UserError:
            raise error from None


def device_answer(lattice: Lattice, turn: int, revision: int) -> Answer:
    """What the device itself makes of a lattice: its best path."""
    return Answer(turn, revision, " ".join(best_path(lattice).words), source="device")


def answer_to_json(answer: Answer) -> dict[str, Any]:
    return asdict(answer)


def answer_from_json(data: bytes) -> Answer:
    """Raises UserError for anything that is no answer: the device trusts no service."""
    try:
        content = json.loads(data)
        hypotheses = tuple(Hypothesis(**each) for each in content.pop("n_best"))
        answer = Answer(n_best=hypotheses, **content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"the service's answer is none ({type(error).__name__})") from error
    numbers = (answer.intent_probability, *(n for each in hypotheses for n in (each.score, each.probability)))
    texts = (answer.text, answer.source, answer.intent or "", *(each.text for each in hypotheses))
    if not (
        all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        and all(isinstance(text, str) for text in texts)
        and type(answer.turn) is type(answer.revision) is int
    ):
        raise UserError("the service's answer has fields of other types than an answer's")
    return answer
