"""Make the corpus: features in shards, a tokenizer, feature statistics.

Run:    dvc repro prepare            Toy: make smoke
Reads:  nothing, or data.manifest, or data.corpus_dir     Writes: data/prepare
Cost:   2.5 minutes on 2 cores for 32 hours of synthetic speech
"""

from pathlib import Path

import pandas

from pipeline.corpus.prepare import Prepared, prepare_corpus
from pipeline.params import load_params
from pipeline.tracking import run_stage, start_run

FOLDER = Path("data/prepare")


def main() -> None:
    params = load_params("prepare")
    with start_run("prepare", params) as run:
        prepared = prepare_corpus(params.data, params.prepare, params.features, params.seed, FOLDER)
        table = split_table(prepared)
        for split, digest in prepared.digests.items():
            run.log_dataset(table[table.split == split], f"prepare/{split}", digest)
        run.log_table(table, "splits.json")
        card = {"digests": prepared.digests, "tokenizer_hash": prepared.tokenizer_hash}
        run.hand_off(FOLDER, card=card, metrics=prepared.metrics)
        run.log_artifact(FOLDER / "rejected.jsonl")


def split_table(prepared: Prepared) -> pandas.DataFrame:
    """One row per split: the metrics that end in its name."""
    rows = []
    for split in prepared.digests:
        ending = f"/{split}"
        counts = {k.removesuffix(ending): v for k, v in prepared.metrics.items() if k.endswith(ending)}
        rows.append({"split": split, **counts})
    return pandas.DataFrame(rows)


if __name__ == "__main__":
    run_stage(main)
