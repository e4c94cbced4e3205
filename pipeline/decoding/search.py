"""What every beam search shares, whatever computes it: its limits, what it asks of a bias, how it is used.

`decoding/beam.py` searches with torch and is the reference, `runtime/fast_beam.py` is compiled.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipeline.decoding.token_lattice import TokenLattice


class Bias(Protocol):
    """Credit for tokens (of phrases, of a lexicon), a walk over nodes (hashable, equal nodes have equal futures);
    bonuses in nats.

    Blank neither moves nor earns. `final` takes back credit for phrases that the end cut off; where that may happen,
    `unfinished` tells the place within a phrase (the same for nodes that differ in something else), else None.
    """

    def start(self) -> Any: ...

    def step(self, node: Any, token: int) -> tuple[Any, float]: ...

    def final(self, node: Any) -> float: ...

    def unfinished(self, node: Any) -> Hashable | None: ...


@runtime_checkable
class RowBias(Bias, Protocol):
    """A bias that steps with all tokens at once: (their nodes, their bonuses)."""

    def row(self, node: Any, num_tokens: int) -> tuple[tuple[Any, ...], Any]: ...


@dataclass(frozen=True)
class BeamConfig:
    """`num_states`: kept after a frame; `num_owing`: kept beside, of those within a phrase, `num_alike` of them at one
    place in it; `beam`: nats below the best beyond which states and arcs are dropped.

    What a phrase lends would else push out of the beam what was said, and be taken back when that is lost. So a list
    never takes a place from a state that owes nothing, nor narrows the beam for it. And of one name after many
    histories the best few will do: the places are for different names.
    """

    num_states: int = 16
    beam: float = 6.0
    num_owing: int = 16
    num_alike: int = 2

    def __post_init__(self):
        if min(self.num_states, self.num_alike) < 1 or self.num_owing < 0 or not self.beam >= 0:
            raise ValueError(
                "num_states and num_alike must be at least 1, num_owing and beam no negative numbers"
            )


class Search(Protocol):
    """A beam search over encoder frames (T, D). Its states tell `moves`: (source, token) of the
    best arc into each in the last frame.

    `blank_posterior`: P(blank) in that frame, after the context from which the best state came; 0 where it was pruned.
    """

    @property
    def bias(self) -> Bias | None: ...

    def initial(self) -> Any: ...

    def advance(self, state: Any, encoded_TD: Any) -> Any: ...

    def best_state(self, state: Any) -> int: ...

    def blank_posterior(self, state: Any) -> float: ...

    def finish(self, state: Any) -> TokenLattice: ...

    def lattice(self, state: Any, beam: float) -> TokenLattice: ...
