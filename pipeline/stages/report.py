"""Put the result in words and pictures: reports/summary.md, reports/plots and the README's table.

Run:    dvc repro report                                Toy: make smoke
Reads:  data/evaluate; curves and cards of the stages   Writes: reports/summary.md, reports/plots, README.md
Cost:   20 s
"""

from pathlib import Path

import pandas as pd

from pipeline.evaluation import plots, summary
from pipeline.evaluation.publish import all_metrics, update_readme
from pipeline.evaluation.size import zeros_per_layer
from pipeline.files import write_atomically
from pipeline.models.transducer import without_training_heads
from pipeline.params import load_params
from pipeline.tracking import load_handoff, run_stage, start_run

TRAINED = ("teacher", "student", "sparsify", "qat")


def main() -> None:
    params = load_params("report")
    reports = Path("reports")
    with start_run("report", params, parents=["evaluate"]) as run:
        metrics = all_metrics(".")
        table = pd.read_parquet("data/evaluate/utterances.parquet")
        models = summary.models_in_order(metrics)
        curves = {stage: pd.read_csv(f"data/{stage}/curves.csv") for stage in TRAINED}
        zeros = {
            model: zeros_per_layer(
                without_training_heads(load_handoff(f"data/{summary.STAGE_OF[model]}").tensors)
            )
            for model in models
            if model in ("sparse", "qat")
        }
        plots.draw_report(reports / "plots", summary.plot_rows(metrics, models), table, curves, zeros)
        write_atomically(reports / "summary.md", summary.document(metrics, table, params.worst_utterances))
        update_readme(".")
        for path in [reports / "summary.md", *sorted((reports / "plots").glob("*.png"))]:
            run.log_artifact(path)
        run.hand_off("data/report", card={"models": models})


if __name__ == "__main__":
    run_stage(main)
