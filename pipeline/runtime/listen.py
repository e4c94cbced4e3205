"""A source of samples through the engine, each event to a listener as it comes: what `sotto listen` does.

    for heard in listen(engine, file_chunks("a.wav", 80)):
        show(heard)

Where a `downstream` is given, its answers come among the events.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

import numpy as np

from pipeline.decoding.search import Bias
from pipeline.errors import UserError
from pipeline.runtime.downstream import Answer, Downstream, dispatch, hang_up, lattice_bytes
from pipeline.runtime.engine import Engine
from pipeline.runtime.events import Event, FinalEnd, Partial, Revise, SpeculativeEnd
from pipeline.runtime.speculation import Ledger

NAMES = {
    Partial: "partial", SpeculativeEnd: "speculative_end", Revise: "revise", FinalEnd: "final_end",
}  # fmt: skip
CLEAR_LINE = "\r\x1b[K"
Show = Callable[[Event | Answer], None]


def listen(
    engine: Engine,
    chunks: Iterable[np.ndarray],
    bias: Bias | None = None,
    from_s: float = 0.0,
    downstream: Downstream | None = None,
    stream_id: str = "local",
) -> Iterator[Event | Answer]:
    """Events of one stream of samples_S (16 kHz, mono), and the answers of a downstream to its finals.

    What had been said when a source fails (UserError) still gets its final before the error goes on.
    """
    state, ledger, failed = engine.stream(bias, from_s), Ledger(), None
    source = iter(chunks)
    try:
        while True:
            try:
                samples_S = next(source, None)
            except UserError as error:
                samples_S, failed = None, error
            if samples_S is None:
                state, events = engine.finish(state)
            else:
                state, events = engine.accept(samples_S, state)
            yield from events
            if downstream is not None:
                ledger, answers = dispatch(events, ledger, downstream, stream_id)
                yield from answers
            if samples_S is None:
                break
    finally:
        if downstream is not None:
            hang_up(ledger, downstream, stream_id)
    if failed is not None:
        raise failed


def as_record(heard: Event | Answer) -> dict:
    """An event or answer as plain JSON; lattices as base64 of their binary format."""
    if isinstance(heard, Answer):
        return {"event": "answer", "turn": heard.turn, "revision": heard.revision, "result": heard.result}
    record = {
        "event": NAMES[type(heard)],
        "turn": heard.turn,
        "revision": heard.revision,
        "time_ms": heard.time_ms,
        "text": heard.text,
    }
    if heard.lattice is not None:
        record["lattice"] = base64.b64encode(lattice_bytes(heard)).decode()
    return record


def show_json(out: TextIO) -> Show:
    """One JSON object a line."""

    def show(heard: Event | Answer) -> None:
        print(json.dumps(as_record(heard), ensure_ascii=False), file=out, flush=True)

    return show


def show_lines(out: TextIO) -> Show:
    """Final words only, a line for each turn; below it what a downstream answered: words, the intent in brackets."""

    def show(heard: Event | Answer) -> None:
        if isinstance(heard, Answer):
            if heard.result is not None:
                print(f"  → {answer_line(heard.result)}", file=out, flush=True)
        elif isinstance(heard, FinalEnd) and heard.text:
            print(heard.text, file=out, flush=True)

    return show


def answer_line(result: Any) -> str:
    """An answer for people: its `text` and `intent` where it has them, else as it is."""
    if not isinstance(result, dict):
        return str(result)
    intent = f" [{result['intent']}]" if result.get("intent") else ""
    return f"{result.get('text', '')}{intent}" + (" (device)" if result.get("source") == "device" else "")


def show_live(out: TextIO) -> Show:
    """A terminal: the words so far on a line that changes, `…` behind them while they may go on, finals stay."""
    finished = show_lines(out)

    def show(heard: Event | Answer) -> None:
        print(CLEAR_LINE, end="", file=out)
        if isinstance(heard, Partial | Revise):
            print(f"{heard.text} …", end="", file=out, flush=True)
        elif isinstance(heard, SpeculativeEnd):
            print(f"{heard.text} ?", end="", file=out, flush=True)
        else:
            finished(heard)

    return show
