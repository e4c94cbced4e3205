"""What a stream says to whoever listens: frozen events, and how the end-pointer's decisions become them.

Of one turn come any number of `Partial`, then `SpeculativeEnd` and `Revise` by turns (perhaps none), then one
`FinalEnd`. (turn, revision) names a version of the turn's words: a listener that has seen it has seen it all, and a
`FinalEnd` with the numbers of a `SpeculativeEnd` carries the same text and lattice. `runtime/speculation.py` is the
listener's side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.decoding.endpointer import Decision, DecisionKind


@dataclass(frozen=True)
class Event:
    """`turn` from 1; `time_ms` on the stream's clock, the end of the 40 ms that made it; `lattice` or None."""

    turn: int
    revision: int
    time_ms: int
    text: str
    lattice: object | None = None


@dataclass(frozen=True)
class Partial(Event):
    """Words so far; `revision` is the last one sent in this turn (`EndpointState.revision`), 0 before any."""


@dataclass(frozen=True)
class SpeculativeEnd(Event):
    """The speaker has probably finished: begin what costs time and can be undone."""


@dataclass(frozen=True)
class Revise(Event):
    """The speculation of this turn was wrong or early: forget what it began. The words are those of now."""

    reset: bool = True


@dataclass(frozen=True)
class FinalEnd(Event):
    """The turn is over; nothing of it will be taken back."""


_CLASSES: dict[DecisionKind, type[Event]] = {
    DecisionKind.SPECULATIVE_END: SpeculativeEnd,
    DecisionKind.REVISE: Revise,
    DecisionKind.FINAL_END: FinalEnd,
}


def events_of(
    decisions: Sequence[Decision], text: str, lattice: object | None, standing: Event | None
) -> tuple[list[Event], Event | None]:
    """The events of one frame's decisions, with the words of that frame -> (events, the speculation that stands).

    A final of the standing speculation repeats its text and lattice: the search may have moved scores since, and
    what was understood from the speculation must be what was finally sent.
    """
    events = []
    for decision in decisions:
        said, found = text, lattice
        if standing is not None and (standing.turn, standing.revision) == (decision.turn, decision.revision):
            said, found = standing.text, standing.lattice
        event = _CLASSES[decision.kind](decision.turn, decision.revision, decision.time_ms, said, found)
        standing = event if isinstance(event, SpeculativeEnd) else None
        events.append(event)
    return events, standing
