"""What every beam search shares, whatever computes it: its limits, what it asks of a bias, how it is used.

`decoding/beam.py` searches with torch and is the reference, `runtime/fast_beam.py` is compiled.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipeline.decoding.token_lattice import TokenLattice


class Bias(Protocol):
    """Credit for tokens (of phrases, of a lexicon), a walk over nodes (hashable, equal nodes have equal futures);
    bonuses in nats.

    Blank neither moves nor earns. `final` takes back credit for phrases that the end cut off.
    """

    def start(self) -> Any: ...

    def step(self, node: Any, token: int) -> tuple[Any, float]: ...

    def final(self, node: Any) -> float: ...


@runtime_checkable
class RowBias(Bias, Protocol):
    """A bias that steps with all tokens at once: (their nodes, their bonuses)."""

    def row(self, node: Any, num_tokens: int) -> tuple[tuple[Any, ...], Any]: ...


@dataclass(frozen=True)
class BeamConfig:
    """`num_states`: kept after a frame; `beam`: nats below the best beyond which states and arcs are dropped."""

    num_states: int = 16
    beam: float = 6.0

    def __post_init__(self):
        if self.num_states < 1 or not self.beam >= 0:
            raise ValueError("num_states must be at least 1, and beam no negative number")


class Search(Protocol):
    """A beam search over encoder frames (T, D). Its states tell `frames`: the arcs of each, best first."""

    @property
    def bias(self) -> Bias | None: ...

    def initial(self) -> Any: ...

    def advance(self, state: Any, encoded_TD: Any) -> Any: ...

    def best_state(self, state: Any) -> int: ...

    def finish(self, state: Any) -> TokenLattice: ...
