"""One turn of one stream: search, best words so far, end-pointer, events. Pure functions over a frozen record.

A frame goes through three steps, so that the score in the middle can be computed for many streams at once:

    turn, heard = search_frame(turn, encoded_1D, frame, spell, settle_ms)
    scores, hidden = endpointer.score(…)                          # all streams
    turn, events = decide(turn, score, hidden, tick, heard.words_changed, …)

Once the words have settled, the end-pointer is asked in the middle of the next frame too (`awaits_half`), where nothing
is searched: a speculation may begin there, but no turn ends before the encoder has heard the frame. Frames count from
the stream's start, ticks are the end-pointer's (`decoding/endpointer.py`).

The lattice of a turn is that of its frames up to `settle_ms` after the last change of its words: the silence behind
adds no word, and a speculation, which is sent no earlier, then holds the very lattice of the final. So what is sent at
last never depends on whether there was a speculation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.decoding import endpointer, trail
from pipeline.decoding.endpoint_input import PauseState, pause_step
from pipeline.decoding.endpointer import TICK_MS, TICKS_PER_FRAME, EndpointConfig, EndpointState
from pipeline.decoding.lattice import Lattice
from pipeline.decoding.search import BeamConfig, Search
from pipeline.decoding.word_lattice import to_words
from pipeline.errors import UserError
from pipeline.runtime.events import Event, Partial, events_of

BELOW = 1e-6  # a score held back stays so far under the speculative threshold


@dataclass(frozen=True)
class EngineConfig:
    """`lattice_beam`: nats below the best path that a lattice keeps, `lattice_nodes` at most.

    settle_ms: without a new word, a speculation waits for so long. max_turn_s: a turn with words ends
    there, whatever is heard. idle_s: without words the search begins anew so often. The two bound the memory.
    """

    beam: BeamConfig = BeamConfig()
    lattice_beam: float = 4.0
    lattice_nodes: int = 400
    settle_ms: int = 160
    max_turn_s: float = 30.0
    idle_s: float = 10.0

    def __post_init__(self) -> None:
        times_ms = self.max_turn_s * 1000, self.idle_s * 1000
        frame_ms = TICKS_PER_FRAME * TICK_MS
        if self.settle_ms < 0 or not all(time_ms >= frame_ms for time_ms in times_ms):
            raise UserError("settle_ms: must be at least 0; max_turn_s, idle_s: at least one frame of 0.08 s")


class Turn(NamedTuple):
    """`beam` and `trails`: the search, its frames counted from `first_frame` of the stream; `best`, `text`: what it
    would say now; `settled`: the search that the lattice is made of, `lattice`: that lattice once it was asked for.
    """

    search: Search
    beam: Any
    settled: Any
    endpoint: EndpointState
    hidden: Any
    first_frame: int
    trails: trail.Trails = trail.START
    best: trail.Trail | None = None
    text: str = ""
    pause: PauseState = PauseState()
    standing: Event | None = None
    lattice: Lattice | None = None


class Heard(NamedTuple):
    """What the search found in a frame: for the score, and for the state machine."""

    words_changed: bool
    pause_D: tuple[float, ...]


def begin(search: Search, hidden: Any, first_frame: int) -> Turn:
    """The first turn of a stream, before `first_frame`."""
    beam = search.initial()
    endpoint = endpointer.initial_state(TICKS_PER_FRAME * first_frame)
    return Turn(search, beam, beam, endpoint, hidden, first_frame)


def last_tick(frame: int) -> int:
    """At which a frame is heard."""
    return TICKS_PER_FRAME * (frame + 1) - 1


def search_frame(
    turn: Turn, encoded_1D: np.ndarray, frame: int, spell: Callable[[Sequence[int]], str], settle_ms: int
) -> tuple[Turn, Heard]:
    """Search one frame; `frame` on the stream's clock, `spell`: token ids -> text."""
    beam = turn.search.advance(turn.beam, encoded_1D)
    trails = trail.extend(turn.trails, beam.moves, frame - turn.first_frame)
    best = trails[turn.search.best_state(beam)]
    text = turn.text if best is turn.best else spell(trail.tokens_of(best))
    changed = text != turn.text
    # The best path may change in the past, so the features are set from it instead of counted on.
    known = PauseState(turn.pause.num_frames, trail.last_frame(best), len(text.split()), turn.pause.blanks)
    pause_D, pause = pause_step(known, 0, 0, turn.search.blank_posterior(beam))
    after = {"beam": beam, "trails": trails, "best": best, "text": text, "pause": pause}
    if changed or _quiet_ms(turn, last_tick(frame)) <= settle_ms:
        after |= {"settled": beam, "lattice": None}
    return turn._replace(**after), Heard(changed, pause_D)


def awaits_half(turn: Turn, num_frames: int, settle_ms: int) -> bool:
    """Whether the end-pointer is to be asked in the middle of the frame that follows `num_frames`, and was not yet."""
    tick = TICKS_PER_FRAME * num_frames
    return turn.endpoint.has_words and turn.endpoint.tick < tick and _quiet_ms(turn, tick) >= settle_ms


def decide(
    turn: Turn,
    score: float,
    hidden: Any,
    tick: int,
    words_changed: bool,
    config: EngineConfig,
    thresholds: EndpointConfig,
    texts: Sequence[str],
) -> tuple[Turn, list[Event]]:
    """The events of a tick, and the turn after it; after a final `has_ended` holds. `texts`: see `to_words`."""
    if tick % TICKS_PER_FRAME == 0:
        score = min(score, thresholds.final_threshold - BELOW)
    settled = not words_changed and _quiet_ms(turn, tick) >= config.settle_ms
    if not settled and score < thresholds.final_threshold:
        score = min(score, thresholds.speculative_threshold - BELOW)
    if _length_ms(turn, tick) >= config.max_turn_s * 1000:
        score = 1.0
    return _step(turn, score, hidden, tick, words_changed, config, thresholds, texts)


def end(
    turn: Turn, config: EngineConfig, thresholds: EndpointConfig, texts: Sequence[str]
) -> tuple[Turn, list[Event]]:
    """Nothing follows: a turn with words gets its final at once."""
    tick = turn.endpoint.tick
    if tick < last_tick(turn.first_frame):
        return turn, []
    again = turn.endpoint._replace(tick=tick - 1)  # the last tick is decided once more
    turn = turn._replace(endpoint=again)
    return _step(turn, 1.0, turn.hidden, tick, False, config, thresholds, texts)


def has_ended(turn: Turn, number: int) -> bool:
    """Whether turn `number` of the stream is over."""
    return turn.endpoint.turn > number


def is_idle(turn: Turn, tick: int, config: EngineConfig) -> bool:
    """Nothing was said for so long that the search may forget it all."""
    return not turn.endpoint.has_words and _length_ms(turn, tick) >= config.idle_s * 1000


def follow(turn: Turn, search: Search, hidden: Any, tick: int) -> Turn:
    """What comes after `tick`: no words, the end-pointer's numbers go on. A frame half heard belongs to it."""
    beam = search.initial()
    return Turn(search, beam, beam, turn.endpoint, hidden, (tick + 1) // TICKS_PER_FRAME)


def _quiet_ms(turn: Turn, tick: int) -> int:
    return (tick - turn.endpoint.quiet_since_tick) * TICK_MS


def _length_ms(turn: Turn, tick: int) -> int:
    return (tick + 1 - TICKS_PER_FRAME * turn.first_frame) * TICK_MS


def _step(
    turn: Turn,
    score: float,
    hidden: Any,
    tick: int,
    changed: bool,
    config: EngineConfig,
    thresholds: EndpointConfig,
    texts: Sequence[str],
) -> tuple[Turn, list[Event]]:
    before = turn.endpoint
    endpoint, decisions = endpointer.step(before, score, tick, changed, thresholds)
    if decisions and turn.lattice is None:
        tokens = turn.search.lattice(turn.settled, config.lattice_beam)
        found = to_words(tokens, texts, beam=config.lattice_beam, max_nodes=config.lattice_nodes)
        turn = turn._replace(lattice=found)
    events, standing = events_of(decisions, turn.text, turn.lattice, turn.standing)
    if changed and not events:
        events = [Partial(before.turn, before.revision, (tick + 1) * TICK_MS, turn.text)]
    return turn._replace(endpoint=endpoint, hidden=hidden, standing=standing), events
