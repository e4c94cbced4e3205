"""The listener's ledger: which work to start, adopt, cancel or run, whatever happens to the events on their way.

    state = Ledger()
    state, actions = deliver(state, event)     # do the actions in their order
    state, actions = close(state)              # the stream has gone: nothing may be left open

Events may be lost, doubled, late and out of order. Still each START is followed by exactly one ADOPT or CANCEL, and a
turn whose `FinalEnd` arrives, however late and often, is acted upon exactly once: by an ADOPT of the work that was
begun on the same words, or by a RUN from the words of the final. At most one speculation is open at a time; a RUN for
a final that comes late begins and ends beside it.

Why it holds: (turn, revision) only rises at the source, so that an event that knows of a higher one proves that the
open work is out of date, even if the event that said so was lost.
"""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from pipeline.runtime.events import Event, FinalEnd, SpeculativeEnd

MEMORY_TURNS = 64  # how late a final may come; the ledger's size is bounded by it


class ActionKind(StrEnum):
    START = "start"
    ADOPT = "adopt"
    CANCEL = "cancel"
    RUN = "run"


@dataclass(frozen=True)
class Action:
    """START work on a speculation, ADOPT or CANCEL that of (turn, revision), or RUN a final without any."""

    kind: ActionKind
    turn: int
    revision: int


@dataclass(frozen=True)
class Ledger:
    """`turn`, `revision`: the highest that any event has shown, the latter within the turn.

    `started`: the highest revision of this turn on which work was begun; `is_open`: that work is neither adopted nor
    cancelled; `finished`: turns whose final has been acted upon, as far back as the memory goes.
    """

    turn: int = 0
    revision: int = 0
    started: int = 0
    is_open: bool = False
    finished: frozenset[int] = frozenset()


def deliver(ledger: Ledger, event: Event) -> tuple[Ledger, list[Action]]:
    """Take one event -> (ledger, actions). A second delivery of an event gives no actions.

    A final that is MEMORY_TURNS or more behind the newest turn is dropped: it can no longer be told from its double.
    """
    ledger, actions = _notice(ledger, event)
    if isinstance(event, FinalEnd):
        ledger, more = _finish(ledger, event)
        return ledger, actions + more
    newest = event.turn == ledger.turn and event.revision == ledger.revision
    fresh = event.revision > ledger.started and event.turn not in ledger.finished
    if isinstance(event, SpeculativeEnd) and newest and fresh:
        actions.append(Action(ActionKind.START, event.turn, event.revision))
        ledger = dataclasses.replace(ledger, started=event.revision, is_open=True)
    return ledger, actions


def close(ledger: Ledger) -> tuple[Ledger, list[Action]]:
    """No event will come any more (or none came for too long): cancel what is open."""
    if not ledger.is_open:
        return ledger, []
    action = Action(ActionKind.CANCEL, ledger.turn, ledger.started)
    return dataclasses.replace(ledger, is_open=False), [action]


def _notice(ledger: Ledger, event: Event) -> tuple[Ledger, list[Action]]:
    """Cancel what a higher turn or revision proves to be out of date, and remember the higher numbers."""
    if (event.turn, event.revision) <= (ledger.turn, ledger.revision):
        return ledger, []
    ledger, actions = close(ledger)
    if event.turn == ledger.turn:
        return dataclasses.replace(ledger, revision=event.revision), actions
    finished = frozenset(turn for turn in ledger.finished if turn > event.turn - MEMORY_TURNS)
    return Ledger(event.turn, event.revision, finished=finished), actions


def _finish(ledger: Ledger, final: FinalEnd) -> tuple[Ledger, list[Action]]:
    if final.turn in ledger.finished or final.turn <= ledger.turn - MEMORY_TURNS:
        return ledger, []
    is_open = ledger.is_open and (final.turn, final.revision) == (ledger.turn, ledger.started)
    kind = ActionKind.ADOPT if is_open else ActionKind.RUN
    finished = ledger.finished | {final.turn}
    ledger = dataclasses.replace(ledger, finished=finished, is_open=ledger.is_open and not is_open)
    return ledger, [Action(kind, final.turn, final.revision)]
