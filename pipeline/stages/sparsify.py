"""Drive half of the weights (a parameter) to zero while training on with the teacher's targets.

Run:    dvc repro sparsify                                    Toy: make smoke
Reads:  data/prepare, data/label, data/<sparsify.after>     Writes: data/sparsify
Cost:   sparsify.trainer.epochs of the student's training, and 150 of its steps to see where zeros hurt least
"""

from pipeline.params import load_params
from pipeline.tracking import load_handoff, run_stage, start_run
from pipeline.training.compress import fine_tune
from pipeline.training.recipe import distillation_data


def main() -> None:
    params = load_params("sparsify")
    before = load_handoff(f"data/{params.after}")
    with start_run("sparsify", params, parents=[params.after, "label"]) as run:
        data = distillation_data(params.trainer.batch_seconds, params.seed)
        done = fine_tune("sparse", params, before.card["model"], before.tensors, data, run)
        layers = run.scratch / "layers.csv"
        layers.write_text(done.layers, encoding="utf-8")
        run.log_artifact(layers)
        run.hand_off(
            "data/sparsify",
            tensors=done.tensors,
            card={key: before.card[key] for key in ("model", "tokenizer_hash")},
            metrics=done.metrics,
            files={"curves.csv": done.curves},
        )


if __name__ == "__main__":
    run_stage(main)
