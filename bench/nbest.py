"""Is a lattice worth its bytes? The errors of its best path for us, against those of an n-best list of equal bytes.

Run:    python bench/nbest.py [UTTERANCES]      Cost: about three minutes for a test set of 1.4 h on a quiet core
Reads data/prepare/test, the run's packed file and data/language_model, whose words both sides know. The list is the
best paths of a lattice three times as wide, as many as fit into the bytes of the lattice that is sent, in the same
format, one path beside the other. Writes bench/nbest.json: `oracle_wer/lattice`, `oracle_wer/list` (percent),
`list_better` (share of utterances), `paths/list` (mean number in the list).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.cli import default_model
from pipeline.cloud.reranker import Reranker
from pipeline.corpus.shards import load_cuts
from pipeline.decoding.lattice import Lattice, build, n_best
from pipeline.decoding.lattice import Path as LatticePath
from pipeline.decoding.lattice_format import write_lattice
from pipeline.decoding.oracle import oracle
from pipeline.decoding.rescoring import Weights
from pipeline.evaluation.lattice_metrics import sent_utterances
from pipeline.evaluation.streams import spread
from pipeline.language.storage import load_language
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.engine import Engine, EngineConfig
from pipeline.tracking import load_handoff

ROOT = Path(__file__).resolve().parents[1]
TEST, LANGUAGE = ROOT / "data/prepare/test", ROOT / "data/language_model"
WIDE = EngineConfig(lattice_beam=3 * EngineConfig.lattice_beam, lattice_nodes=5 * EngineConfig.lattice_nodes)
MOST_PATHS = 64


def main() -> None:
    if not TEST.is_dir() or not LANGUAGE.is_dir():
        print("no data/prepare/test or no data/language_model: skipped; `make device` makes them")
        return
    packed, hand = load_packed(default_model()), load_handoff(LANGUAGE)
    reranker = Reranker(load_language(hand.card, hand.tensors), packed, Weights())
    cuts = list(load_cuts(TEST, with_audio=True))
    cuts = spread(cuts, int(sys.argv[1]) if len(sys.argv) > 1 else len(cuts))
    audio = [cut.load_audio()[0] for cut in cuts]
    sent, wide = (
        sent_utterances(Engine(packed, config), audio, cuts, reranker.words, lambda lattice: [])
        for config in (EngineConfig(), WIDE)
    )
    rows = []
    for small, large in zip(sent, wide, strict=True):
        reference = small.reference.split()
        paths = list_within(large.made, small.lattice_bytes, reranker.words)
        of_list = min(oracle(beside([path]), reference).num_errors for path in paths)
        rows.append((len(reference), oracle(small.lattice, reference).num_errors, of_list, len(paths)))
    words_B, lattice_B, list_B, paths_B = np.array(rows).T
    found = {
        "oracle_wer/lattice": 100 * lattice_B.sum() / words_B.sum(),
        "oracle_wer/list": 100 * list_B.sum() / words_B.sum(),
        "list_better": float((list_B < lattice_B).mean()),
        "paths/list": float(paths_B.mean()),
        "utterances": len(rows),
    }
    (ROOT / "bench/nbest.json").write_text(json.dumps(found, indent=2) + "\n")
    print("\n".join(f"{key:20} {value:.4g}" for key, value in found.items()))


def list_within(lattice: Lattice, num_bytes: int, words: Sequence[str]) -> list[LatticePath]:
    """As many of the best paths as fit, one at least."""
    paths = n_best(lattice, MOST_PATHS)
    fitting = [
        n for n in range(1, len(paths) + 1) if len(write_lattice(beside(paths[:n]), words)) <= num_bytes
    ]
    return paths[: max(fitting, default=1)]


def beside(paths: Sequence[LatticePath]) -> Lattice:
    """The paths as a lattice in which they share nothing but their ends."""
    arcs, end = [], sum(len(path.arcs) for path in paths) + 1
    node, num_frames = 0, max(arc.end_frame for path in paths for arc in path.arcs)
    for path in paths:
        source = 0
        for arc in path.arcs[:-1]:
            node += 1
            arcs.append(arc._replace(source=source, target=node))
            source = node
        arcs.append(path.arcs[-1]._replace(source=source, target=end))
    return build(0, end, arcs, num_frames)


if __name__ == "__main__":
    main()
