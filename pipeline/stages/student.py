"""Distil the student from the teacher's targets on labelled and unlabelled speech.

Run:    dvc repro student                        Toy: make smoke
Reads:  data/prepare, data/label, data/teacher   Writes: data/student
Cost:   see seconds/student in data/student/metrics.json; some ten minutes on 2 cores
"""

from pipeline.params import load_params
from pipeline.tracking import run_stage, start_run
from pipeline.training.recipe import distillation_data, new_model, train


def main() -> None:
    params = load_params("student")
    with start_run("student", params, parents=["prepare", "teacher", "label"]) as run:
        data = distillation_data(params.trainer.batch_seconds, params.seed)
        model = new_model("student", params)
        curves, metrics = train(run, model, params, data)
        card = {"model": model.config.as_dict(), "tokenizer_hash": data.tokenizer.hash}
        run.hand_off(
            "data/student",
            tensors=model.state_dict(),
            card=card,
            metrics=metrics,
            files={"curves.csv": curves.csv()},
        )


if __name__ == "__main__":
    run_stage(main)
