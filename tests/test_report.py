"""The report from fabricated evaluations: tables, README between its markers, publishing of presets."""

import json

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.evaluation import device_table, plots, publish, summary
from pipeline.evaluation.measure import comparisons, size_metrics, word_error_metrics
from tests.test_evaluation import fabricated_table

RATES = {"teacher": 0.05, "student": 0.08, "sparse": 0.1, "qat": 0.11, "packed": 0.11}


def fabricated_run(order=tuple(RATES)):
    """(metrics, table of all models) of an evaluation whose steps grow worse one by one."""
    tables = {
        model: fabricated_table(model, RATES[model], seed=i).assign(
            language="en", whisper=False, unseen_name=False, source=None
        )
        for i, model in enumerate(order)
    }
    metrics = word_error_metrics(tables, seed=7, replicates=200)
    for model in order:
        weights = {"w": np.tile([0.0, 1.0], (40, 50 if model == "teacher" else 5)).astype(np.float32)}
        metrics |= size_metrics(model, weights)
    metrics["ratio/bytes_packed_to_teacher"] = metrics["bytes/packed"] / metrics["bytes/teacher"]
    return metrics, pd.concat(tables.values(), ignore_index=True)


def test_metrics_have_the_promised_keys_and_pair_every_step():
    metrics, _ = fabricated_run()
    for model in RATES:
        assert (
            metrics[f"wer/{model}/test/low"]
            <= metrics[f"wer/{model}/test"]
            <= metrics[f"wer/{model}/test/high"]
        )
        assert f"wer/{model}/test_noisy/high" in metrics
        errors = sum(metrics[f"{kind}/{model}/test"] for kind in summary.ERRORS)
        assert metrics[f"wer/{model}/test"] == pytest.approx(100 * errors / metrics["words/test"])
    assert metrics["delta/sparse-student"] == pytest.approx(
        metrics["wer/sparse/test"] - metrics["wer/student/test"]
    )
    assert metrics["ratio/wer_packed_to_teacher"] == pytest.approx(
        metrics["wer/packed/test"] / metrics["wer/teacher/test"]
    )
    assert {"delta/packed-teacher/low", "delta/packed-qat", "relative/packed-teacher"} <= set(metrics)


@pytest.mark.parametrize(
    "order",
    [
        ("teacher", "student", "sparse", "qat", "packed"),
        ("teacher", "student", "qat", "sparse", "packed"),
        ("teacher", "student", "qat", "packed"),
        ("teacher", "packed"),
    ],
)
def test_the_order_of_steps_is_read_back_from_sorted_keys(order):
    keys = {f"delta/{new}-{base}": 0.0 for new, base in comparisons(order)}
    assert summary.models_in_order(dict(sorted(keys.items()))) == list(order)


def test_one_language_makes_no_language_set_and_two_make_two():
    tables = {"teacher": fabricated_table().assign(language=["en", "es"] * 120)}
    assert {"words/test_en", "words/test_es"} <= set(word_error_metrics(tables, seed=0, replicates=10))
    tables = {"teacher": fabricated_table().assign(language="en")}
    assert "words/test_en" not in word_error_metrics(tables, seed=0, replicates=10)


def test_document_names_every_step_with_its_numbers():
    metrics, table = fabricated_run()
    text = summary.document(metrics, table, num_worst=3)
    for model in RATES:
        assert summary.interval_cell(metrics, f"wer/{model}/test") in text
        assert f"{int(metrics[f'bytes/{model}']):,}" in text
    assert "SNR below 12 dB" in text and "kitchen → x" in text
    assert text.count("\n| s") >= 3


def test_all_pictures_of_the_report_are_drawn(tmp_path):
    metrics, table = fabricated_run()
    curves = {
        "teacher": pd.DataFrame(
            {"step": [0, 1], "epoch": [0, 1], "loss": [3.0, 1.0], "dev_wer": [50.0, 20.0]}
        )
    }
    rows = summary.plot_rows(metrics, list(RATES))
    paths = plots.draw_report(tmp_path, rows, table, curves, {"sparse": {"w": 0.5}})
    assert {path.stem for path in paths} >= {
        "wer_against_bytes",
        "training_curves",
        "zeros_per_layer",
        "wer_by_voice",
    }
    assert all(path.stat().st_size > 3000 for path in paths)


@pytest.fixture
def fabricated_project(tmp_path):
    """A project folder with an evaluated run and a README whose table is empty."""
    metrics, _ = fabricated_run()
    for stage, content in {"evaluate": metrics, "teacher": {"seconds/teacher": 700.0}}.items():
        folder = tmp_path / "data" / stage
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(content))
    start, end = summary.RESULTS
    (tmp_path / "README.md").write_text(f"# Head\n\n{start}\nold\n{end}\n\ntail\n")
    return tmp_path


def test_publishing_writes_columns_and_rows_into_the_readme(fabricated_project):
    publish.update_readme(fabricated_project)
    first = (fabricated_project / "README.md").read_text()
    assert "old" not in first and first.startswith("# Head\n") and first.endswith("\n\ntail\n")
    assert "PRESET=full" not in first and "**packed file**" in first
    path = publish.publish(fabricated_project, "full", fabricated_project)
    assert path == fabricated_project / "reports/full.json"
    assert json.loads(path.read_text())["seconds/teacher"] == 700.0
    publish.publish(fabricated_project, "real-pretrained", fabricated_project)
    publish.publish(fabricated_project, "joint", fabricated_project)
    text = (fabricated_project / "README.md").read_text()
    assert "PRESET=full" in text and "| real speech, pretrained |" in text and "joint" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_updating_twice_changes_nothing(fabricated_project):
    publish.update_readme(fabricated_project)
    before = (fabricated_project / "README.md").read_text()
    publish.update_readme(fabricated_project)
    assert (fabricated_project / "README.md").read_text() == before


def test_nothing_evaluated_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="run `dvc repro evaluate`"):
        publish.publish(tmp_path, "full", tmp_path)


def test_missing_markers_are_noticed():
    with pytest.raises(ValueError, match="markers"):
        summary.replace_between_markers("no markers", "table")


def test_the_device_has_a_row_for_what_was_measured(tmp_path):
    start, end = device_table.MARKERS
    (tmp_path / "README.md").write_text(f"head\n{start}\nold\n{end}\ntail\n")
    device_table.update_readme(tmp_path)  # nothing was measured yet
    assert "old" in (tmp_path / "README.md").read_text()
    folder = tmp_path / "data/stream"
    folder.mkdir(parents=True)
    metrics = {"utterances/stream": 300.0, "rtf/engine": 0.005, "bias/anti/wer": 44.04}
    metrics |= {f"bias/{size}/wer": 40.0 + size / 1000 for size in (0, 10, 100, 1000)}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    device_table.update_readme(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| WER with 0, 10, 100, 1,000 phrases | 40.0, 40.0, 40.1, 41.0 % |" in text and "44.0 %" in text
    assert "| test utterances | 300 |" in text and "old" not in text
    assert "real-time" not in text  # without its peers a row says nothing
