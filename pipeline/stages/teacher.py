"""Train the teacher on the labelled pool.

Run:    dvc repro teacher            Toy: make smoke
Reads:  data/prepare                 Writes: data/teacher
Cost:   see seconds/teacher in data/teacher/metrics.json; a quarter hour on 2 cores
"""

from pipeline.params import load_params
from pipeline.tracking import run_stage, start_run
from pipeline.training.recipe import labelled_data, new_model, train


def main() -> None:
    params = load_params("teacher")
    with start_run("teacher", params, parents=["prepare"]) as run:
        data = labelled_data(params.trainer.batch_seconds, params.seed)
        model = new_model("teacher", params)
        curves, metrics = train(run, model, params, data)
        card = {"model": model.config.as_dict(), "tokenizer_hash": data.tokenizer.hash}
        run.hand_off(
            "data/teacher",
            tensors=model.state_dict(),
            card=card,
            metrics=metrics,
            files={"curves.csv": curves.csv()},
        )


if __name__ == "__main__":
    run_stage(main)
