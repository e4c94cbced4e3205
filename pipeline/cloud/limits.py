"""How large a lattice the service takes: a small one, well-formed, can still mean hours of work."""

from pipeline.decoding.lattice import Arc, Lattice, best_after
from pipeline.errors import UserError

MAX_ARCS, MAX_WORDS, MAX_LETTERS = 20_000, 128, 1024  # the last two: of the longest path


def check_size(lattice: Lattice) -> None:
    """Raises UserError where a lattice, though well-formed, is larger than any turn of speech makes it."""
    if len(lattice.arcs) > MAX_ARCS:
        raise UserError(f"lattice: {len(lattice.arcs)} arcs are more than the service takes ({MAX_ARCS})")
    for name, limit, size in (("words", MAX_WORDS, _one), ("letters", MAX_LETTERS, _letters)):
        longest = best_after(lattice, size)[0]
        if longest > limit:
            raise UserError(f"lattice: its longest path has {longest:.0f} {name}; the service takes {limit}")


def _one(arc: Arc) -> float:
    return 1.0


def _letters(arc: Arc) -> float:
    return float(len(arc.word))
