"""The seam between a stream's events and whoever works on them: a cloud that reranks, an understander, a test's fake.

    ledger, answers = dispatch(events, Ledger(), downstream, "kitchen")       # after each chunk
    ledger = hang_up(ledger, downstream, "kitchen")                           # the stream has gone

A `Downstream` is told of work to start, to give up and to keep; `runtime/speculation.py` sees to it that each `submit`
is followed by exactly one `cancel` or `adopt`. Nothing here opens a socket: with no downstream a stream stays on the
device.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.decoding.lattice import Lattice
from pipeline.decoding.lattice_format import write_lattice
from pipeline.runtime.events import Event
from pipeline.runtime.speculation import Action, ActionKind, Ledger, close, deliver


class Downstream(Protocol):
    """Takes lattices of turns. `(stream_id, turn, revision)` names a version of a turn's words.

    No method may raise because the other end is away, nor wait for it for long: they are called between two chunks of
    audio. A client over a network queues in `submit` and `cancel` and gives up in `adopt` after its own deadline.
    """

    def submit(self, stream_id: str, turn: int, revision: int, lattice_bytes: bytes) -> None:
        """Begin to work on a lattice (`decoding/lattice_format.py`, no shared words); it may be cancelled.

        What was cancelled is submitted once more where its final came later than that of the next turn.
        """
        ...

    def cancel(self, stream_id: str, turn: int, revision: int) -> None:
        """The words were not these after all: drop the work and what came of it."""
        ...

    def adopt(self, stream_id: str, turn: int, revision: int) -> Any:
        """The words are final: what came of the work, or None where the device's own words must do."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a downstream made of a turn's final words. `result` None: it was away."""

    turn: int
    revision: int
    result: Any


def dispatch(
    events: Iterable[Event], ledger: Ledger, downstream: Downstream, stream_id: str
) -> tuple[Ledger, list[Answer]]:
    """Tell `downstream` what the events ask for, in their order -> (ledger, the answers to finals among them)."""
    answers = []
    for event in events:
        ledger, actions = deliver(ledger, event)
        for action in actions:
            answers += _act(action, event, downstream, stream_id)
    return ledger, answers


def hang_up(ledger: Ledger, downstream: Downstream, stream_id: str) -> Ledger:
    """No event will come any more: what is still open is cancelled."""
    ledger, actions = close(ledger)
    for action in actions:
        downstream.cancel(stream_id, action.turn, action.revision)
    return ledger


def lattice_bytes(event: Event) -> bytes:
    """The event's lattice on the wire. Raises ValueError for an event without one (a partial)."""
    if not isinstance(event.lattice, Lattice):
        raise ValueError(f"turn {event.turn}: this event carries no lattice")
    return write_lattice(event.lattice)


def _act(action: Action, event: Event, downstream: Downstream, stream_id: str) -> list[Answer]:
    names = (stream_id, action.turn, action.revision)
    if action.kind in (ActionKind.START, ActionKind.RUN):
        downstream.submit(*names, lattice_bytes(event))
    if action.kind == ActionKind.CANCEL:
        downstream.cancel(*names)
    if action.kind in (ActionKind.ADOPT, ActionKind.RUN):
        return [Answer(action.turn, action.revision, downstream.adopt(*names))]
    return []
