"""Lattices for other programs and for the eye: HTK's SLF, Kaldi's CompactLattice text, a drawing.

SLF: Young et al., the HTK book, chapter on the Standard Lattice Format. CompactLattice: Povey et al. 2012, "Generating
exact lattices in the WFST framework".
"""

from xml.sax.saxutils import escape

from pipeline.decoding.lattice import Arc, Lattice, best_path, posteriors
from pipeline.features.frames import FRAME_S

EPSILON_SLF, EPSILON_KALDI = "!NULL", "<eps>"
COLUMN_PX, ROW_PX, MARGIN_PX = 110, 64, 40


def to_htk_slf(lattice: Lattice, utterance: str = "utterance") -> str:
    """SLF 1.0: a= log probability, l= bonus (nats, lmscale 1); t= seconds at which a node's words have ended.

    The frames of a word are fields of our own, `first` and `past`, which the format lets other readers skip.
    """
    end_frame = _end_frames(lattice)
    lines = ["VERSION=1.0", f"UTTERANCE={_quoted(utterance)}", "lmscale=1.0", "wdpenalty=0.0"]
    lines.append(f"N={lattice.num_nodes} L={len(lattice.arcs)}")
    lines += [f"I={node} t={frame * FRAME_S:.2f}" for node, frame in enumerate(end_frame)]
    for number, arc in enumerate(lattice.arcs):
        word = _quoted(arc.word) if arc.word else EPSILON_SLF
        lines.append(
            f"J={number} S={arc.source} E={arc.target} W={word} a={arc.acoustic!r} l={arc.bonus!r} "
            f"first={arc.start_frame} past={arc.end_frame}"
        )
    return "\n".join(lines) + "\n"


def to_kaldi_compact(lattice: Lattice, utterance: str = "utterance") -> str:
    """One entry of a text archive: `source target word graph-cost,acoustic-cost,alignment`, a blank line behind.

    Costs are negated scores, the bonus is the graph cost. There are no transition ids; in their place stand the
    numbers, from 1, of the 80 ms frames that the word fills. Words are words: `sym2int.pl -f 3` makes ids of them.
    """
    lines = [utterance]
    for arc in lattice.arcs:
        alignment = "_".join(str(frame + 1) for frame in range(arc.start_frame, arc.end_frame))
        costs = f"{-arc.bonus!r},{-arc.acoustic!r},{alignment}"
        lines.append(f"{arc.source} {arc.target} {arc.word or EPSILON_KALDI} {costs}")
    lines.append(f"{lattice.num_nodes - 1} 0,0,")
    return "\n".join(lines) + "\n\n"


def to_svg(lattice: Lattice) -> str:
    """A drawing from left to right: an arc is as dark as it is probable, the best path is orange.

    Hovering over a word shows its scores, posterior and seconds.
    """
    place = _layout(lattice)
    best = set(best_path(lattice).arcs)
    width = max(x for x, _ in place) + MARGIN_PX
    between: dict[tuple[int, int], int] = {}
    parts = []
    for arc, posterior in sorted(
        zip(lattice.arcs, posteriors(lattice), strict=True), key=lambda pair: pair[1]
    ):
        lane = between[arc.source, arc.target] = between.get((arc.source, arc.target), -1) + 1
        colour = "#d6730a" if arc in best else "#333"
        parts.append(_svg_arc(arc, place[arc.source], place[arc.target], lane, posterior, colour))
    room = ROW_PX + ROW_PX // 2 * max(between.values())  # parallel arcs bend beyond the outermost nodes
    top = min(y for _, y in place) - room
    height = max(y for _, y in place) + room - top
    circles = [f'<circle cx="{x}" cy="{y}" r="4" fill="#333"/>' for x, y in place]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {top} {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="13" text-anchor="middle">\n'
        + "\n".join(parts + circles)
        + "\n</svg>\n"
    )


def _svg_arc(
    arc: Arc, source: tuple[int, int], target: tuple[int, int], lane: int, posterior: float, colour: str
) -> str:
    (x0, y0), (x1, y1) = source, target
    bend = (lane + (x1 - x0 > COLUMN_PX)) * ROW_PX * (1 if y0 + y1 > 0 else -1)  # over the nodes in between
    x, y = (x0 + x1) / 2, (y0 + y1) / 2 + bend
    opacity = 0.25 + 0.75 * min(1.0, posterior)
    seconds = f"{arc.start_frame * FRAME_S:.2f}–{arc.end_frame * FRAME_S:.2f} s"
    title = f"{arc.word or 'ε'}: {posterior:.1%}, {arc.acoustic:.2f} {arc.bonus:+.2f} nats, {seconds}"
    return (
        f'<g opacity="{opacity:.2f}"><title>{escape(title)}</title>'
        f'<path d="M{x0} {y0}Q{x} {y} {x1} {y1}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        f'<text x="{x}" y="{(y0 + y1) / 4 + y / 2 - 4}" fill="{colour}">{escape(arc.word or "ε")}</text></g>'
    )


def _layout(lattice: Lattice) -> list[tuple[int, int]]:
    """x: arcs from the start, on the longest way; y: the best path in the middle, others above and below."""
    rank = [0] * lattice.num_nodes
    for arc in lattice.arcs:
        rank[arc.target] = max(rank[arc.target], rank[arc.source] + 1)
    row = {node: 0 for arc in best_path(lattice).arcs for node in (arc.source, arc.target)}
    used: dict[int, int] = {rank[node]: 1 for node in row}
    for node in range(lattice.num_nodes):
        if node not in row:
            number = used[rank[node]] = used.get(rank[node], 1) + 1
            row[node] = number // 2 * (1 if number % 2 else -1)
    return [(MARGIN_PX + COLUMN_PX * rank[node], ROW_PX * row[node]) for node in range(lattice.num_nodes)]


def _end_frames(lattice: Lattice) -> list[int]:
    frames = [0] * lattice.num_nodes
    for arc in lattice.arcs:
        frames[arc.target] = max(frames[arc.target], arc.end_frame)
    return frames


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
