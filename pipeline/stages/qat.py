"""Quantise the weights to a few levels while training on with the teacher's targets.

Run:    dvc repro qat                                         Toy: make smoke
Reads:  data/prepare, data/label, data/<qat.after>     Writes: data/qat
Cost:   qat.trainer.epochs of the student's training, and 150 of its steps to see where rounding hurts
"""

from pipeline.params import load_params
from pipeline.tracking import load_handoff, run_stage, start_run
from pipeline.training.compress import fine_tune
from pipeline.training.recipe import distillation_data


def main() -> None:
    params = load_params("qat")
    before = load_handoff(f"data/{params.after}")
    with start_run("qat", params, parents=[params.after, "label"]) as run:
        data = distillation_data(params.trainer.batch_seconds, params.seed)
        done = fine_tune("qat", params, before.card["model"], before.tensors, data, run)
        layers = run.scratch / "layers.csv"
        layers.write_text(done.layers, encoding="utf-8")
        run.log_artifact(layers)
        run.hand_off(
            "data/qat",
            tensors=done.tensors,
            card={key: before.card[key] for key in ("model", "tokenizer_hash")},
            metrics=done.metrics,
            files={"curves.csv": done.curves},
        )


if __name__ == "__main__":
    run_stage(main)
