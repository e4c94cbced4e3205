"""The whole graph on toy parameters in a temporary copy: what it leaves, and what is run again when."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.files import read_yaml
from pipeline.params import STAGES
from pipeline.presets import write_yaml
from tests.conftest import copy_of, dvc, toy_environment

MODELS = ("teacher", "student", "sparse", "qat", "packed")


@pytest.fixture(scope="module")
def workspace(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(toy_run, tmp_path_factory.mktemp("smoke") / "project")


@pytest.fixture
def params(workspace: Path):
    """Edit one key of the workspace's params.yaml; undone afterwards."""
    before = (workspace / "params.yaml").read_bytes()

    def edit(section: str, key: str, value: object) -> None:
        content = read_yaml(workspace / "params.yaml")
        assert content[section][key] != value
        content[section][key] = value
        write_yaml(workspace / "params.yaml", content)

    yield edit
    (workspace / "params.yaml").write_bytes(before)


def changed_stages(workspace: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=workspace, env=toy_environment(workspace), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout))


def test_every_stage_leaves_its_handoff(toy_run):
    for stage in STAGES:
        card = json.loads((toy_run / f"data/{stage}/card.json").read_text())
        assert card["stage"] == stage and card["run_id"], stage
        assert f"seconds/{stage}" in json.loads((toy_run / f"data/{stage}/metrics.json").read_text())
    assert not list((toy_run / ".scratch").glob("*-*")), "scratch folders go with success"
    assert (toy_run / "reports/summary.md").stat().st_size > 500


def test_metrics_have_the_agreed_keys(toy_run):
    metrics = json.loads((toy_run / "data/evaluate/metrics.json").read_text())
    for model in MODELS:
        low, wer, high = (metrics[f"wer/{model}/test{end}"] for end in ("/low", "", "/high"))
        assert 0 <= low <= wer <= high
        assert metrics[f"bytes/{model}"] > 0 and metrics[f"params/{model}"] > 0
    assert metrics["bytes/packed"] == (toy_run / "data/pack/model.sotto").stat().st_size
    assert metrics["bytes/packed"] < metrics["bytes/teacher"] / 4
    assert metrics["zeros/packed"] >= 0.5 and metrics["zeros/sparse"] >= 0.5
    assert metrics["bits_per_weight/packed"] < 32


def test_mlflow_has_one_parent_with_a_child_per_stage(toy_run):
    from pipeline.tracking import store

    client, experiment = store.open_store(f"sqlite:///{toy_run / 'mlflow.db'}")
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert parent.info.status == "FINISHED" and set(children) == set(STAGES)
    for stage, run in children.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id and run.info.status == "FINISHED"
        assert run.data.params and run.data.metrics, stage
        assert "metrics.json" in {file.path for file in client.list_artifacts(run.info.run_id)}
    for stage in ("teacher", "student", "sparsify", "qat", "pack"):
        assert {"wer", "bytes"} <= set(children[stage].data.metrics), stage
    for stage in ("teacher", "student", "sparsify", "qat"):
        curves = [
            key
            for key in children[stage].data.metrics
            if len(client.get_metric_history(children[stage].info.run_id, key)) > 1
        ]
        assert curves, f"{stage} has no curve"
    assert children["prepare"].inputs.dataset_inputs


def test_a_second_repro_runs_nothing(workspace):
    done = dvc(workspace, "repro")
    assert done.returncode == 0 and "up to date" in done.stdout and "Running stage" not in done.stdout, (
        done.stdout
    )


def test_an_edited_section_concerns_only_its_stage(workspace, params):
    params("qat", "levels", 5)
    assert changed_stages(workspace) == {"qat"}
    params("evaluate", "bootstrap_replicates", 50)
    assert changed_stages(workspace) == {"qat", "evaluate"}


def test_an_edited_loss_concerns_only_what_trains_with_it(workspace):
    path = workspace / "pipeline/losses/distillation.py"
    before = path.read_bytes()
    path.write_bytes(before + b"# edited\n")
    try:
        changed = changed_stages(workspace)
    finally:
        path.write_bytes(before)
    assert {"student", "sparsify", "qat"} <= changed and not changed & {
        "prepare",
        "pack",
        "evaluate",
        "report",
    }


def test_a_wrong_parameter_stops_the_stage_with_a_sentence(workspace, params):
    params("qat", "levels", 0)
    done = dvc(workspace, "repro")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "params.yaml: qat.levels must be an odd number of levels" in done.stdout


def test_only_what_follows_is_run_again(workspace, params):
    params("evaluate", "bootstrap_replicates", 50)
    before = (workspace / "data/pack/model.sotto").stat()
    done = dvc(workspace, "repro")
    assert done.returncode == 0, done.stdout
    ran = {stage for stage in STAGES if f"Running stage '{stage}'" in done.stdout}
    assert "evaluate" in ran and ran <= {"evaluate", "report"}
    assert (workspace / "data/pack/model.sotto").stat().st_mtime == before.st_mtime
    shown = dvc(workspace, "metrics", "show")
    assert shown.returncode == 0 and "data/evaluate/metrics.json" in shown.stdout
