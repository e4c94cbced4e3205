"""Let the teacher hear both pools: pseudo-labels, lattice scores and top-k targets for the student.

Run:    dvc repro label                   Toy: make smoke
Reads:  data/prepare, data/{teacher,lexicon}  Writes: data/label/targets (shards)
Cost:   a minute for 30 hours on 2 cores; a killed run goes on at its last shard
"""

from pathlib import Path

from pipeline.corpus.shards import load_cuts
from pipeline.corpus.teacher_targets import write_selection
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.params import load_params
from pipeline.runtime.word_section import read_lexicon
from pipeline.tracking import load_handoff, run_stage, start_run
from pipeline.training.labelling import label_pool
from pipeline.training.precision import takes_bf16
from pipeline.training.recipe import PREPARED, load_model


def main() -> None:
    params = load_params("label")
    teacher = load_handoff("data/teacher")
    with start_run("label", params, parents=["prepare", "teacher", "lexicon"]) as run:
        model = load_model(teacher.card["model"], teacher.tensors).eval()
        tokenizer = Tokenizer.from_model(PREPARED / "tokenizer.model")
        cuts = [cut for split in ("train", "unlabelled") for cut in load_cuts(PREPARED / split)]
        folder = Path(run.scratch) / "targets"
        folder.mkdir(exist_ok=True)
        too_short = label_pool(
            model,
            tokenizer,
            cuts,
            folder,
            top_k=params.top_k,
            shard_size=params.shard_size,
            batch_seconds=params.batch_seconds,
            in_bf16=takes_bf16(params.precision),
            lexicon=read_lexicon("data/lexicon/words.bin", tokenizer),
        )
        metrics = write_selection(folder, params.min_confidence_quantile)
        size_bytes = sum(path.stat().st_size for path in folder.iterdir())
        run.hand_off(
            "data/label",
            card={"tokenizer_hash": tokenizer.hash},
            metrics={**metrics, "utterances/too_short": too_short, "bytes/targets": size_bytes},
            files={"targets": folder},
        )


if __name__ == "__main__":
    run_stage(main)
