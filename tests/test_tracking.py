"""Runs, scratch folders, hand-offs: what a kill leaves, what is resumed, what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.tracking import load_handoff, start_run, store
from pipeline.tracking.process import is_disk_full
from pipeline.tracking.scratch import fingerprint
from tests.conftest import stage_environment

PARAMS = {"seed": 1, "steps": 3, "trainer": {"epochs": 2}}
TRAINER = """
import sys, time
from pathlib import Path
from pipeline.tracking import run_stage, start_run

def main():
    with start_run("grow", {"steps": 3}) as run:
        (run.scratch / "last.ckpt").touch()
        Path("started").write_text(run.run_id)
        time.sleep(120)

run_stage(main)
"""


def client():
    return store.open_store(store.tracking_uri())[0]


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_a_stage_leaves_a_child_run_and_a_handoff_under_one_parent(project):
    with start_run("grow", PARAMS) as run:
        scratch = run.scratch
        run.log_metrics({"loss": 3.0}, step=1)
        run.log_metrics({"loss": 2.0}, step=2)
        (run.scratch / "shards").mkdir()
        (run.scratch / "shards" / "a.bin").write_bytes(b"abc")
        run.hand_off(
            "data/grow",
            tensors={"w": torch.arange(6.0).reshape(2, 3)},
            card={"model": {"width": 3}},
            metrics={"bytes/grow": 24},
            files={"curves.csv": "step,loss\n1,3\n", "shards": run.scratch / "shards"},
        )
    assert not scratch.exists()
    hand = load_handoff("data/grow")
    assert torch.equal(hand.tensors["w"], torch.arange(6.0).reshape(2, 3))
    assert hand.card["run_id"] == run.run_id and hand.card["model"] == {"width": 3}
    assert hand.metrics["bytes/grow"] == 24 and hand.metrics["seconds/grow"] >= 0
    assert (project / "data/grow/shards/a.bin").read_bytes() == b"abc"
    assert sorted(path.name for path in (project / "data/grow").iterdir()) == [
        "card.json", "curves.csv", "metrics.json", "model.safetensors", "shards",
    ]  # fmt: skip
    logged = client().get_run(run.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["trainer.epochs"] == "2"
    assert [point.value for point in client().get_metric_history(run.run_id, "loss")] == [3.0, 2.0]
    assert "model.safetensors" in {file.path for file in client().list_artifacts(run.run_id)}
    parent = client().get_run(logged.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "RUNNING", "the report stage closes it"


def test_a_failed_stage_resumes_the_same_run_and_scratch(project):
    with pytest.raises(RuntimeError), start_run("grow", PARAMS) as first:
        (first.scratch / "last.ckpt").write_text("half")
        raise RuntimeError("power cut")
    assert client().get_run(first.run_id).info.status == "FAILED"
    with start_run("grow", PARAMS) as second:
        assert (second.scratch / "last.ckpt").read_text() == "half"
    assert second.run_id == first.run_id


@pytest.mark.parametrize(
    ("file", "text"), [("input.txt", "sand"), ("params.yaml", "seed: 2\ngrow: {steps: 3}\n")]
)
def test_a_checkpoint_of_other_inputs_is_not_trusted(project, file, text):
    with pytest.raises(KeyboardInterrupt), start_run("grow", PARAMS) as first:
        raise KeyboardInterrupt
    (project / file).write_text(text)
    with start_run("grow", PARAMS) as second:
        assert second.scratch != first.scratch and not first.scratch.exists()
    assert second.run_id != first.run_id
    assert client().get_run(first.run_id).info.status == "KILLED"


def test_fingerprint_ignores_other_sections_and_byte_code(project):
    before = fingerprint("grow")
    (project / "params.yaml").write_text("seed: 1\ngrow: {steps: 3}\nelsewhere: {width: 5}\n")
    (project / "__pycache__").mkdir()
    assert fingerprint("grow") == before
    (project / "params.yaml").write_text("seed: 1\ngrow: {steps: 4}\n")
    assert fingerprint("grow") != before


def test_a_second_trainer_is_refused_by_name_of_the_first(project, monkeypatch):
    monkeypatch.setattr("pipeline.tracking.scratch.LOCK_WAIT_S", 0.5)
    (project / "grow.py").write_text(TRAINER)
    first = subprocess.Popen([sys.executable, "grow.py"], env=stage_environment(), cwd=project)
    try:
        wait_for((project / "started").exists)
        with (
            pytest.raises(UserError, match=f"process {first.pid} is running grow"),
            start_run("grow", PARAMS),
        ):
            pass
    finally:
        first.kill()
        first.wait()
    with start_run("grow", {"steps": 3}) as run:  # the lock went with the killed process, its run goes on
        assert run.run_id == (project / "started").read_text()


@pytest.mark.parametrize("shell", ["exec {}", "{}; true"], ids=["direct", "shell between"])
def test_no_trainer_outlives_the_dvc_that_started_it(project, shell):
    (project / "grow.py").write_text(TRAINER)
    command = shell.format(f"{sys.executable} grow.py")
    driver = (
        "import os, subprocess, sys; os.environ['DVC_STAGE'] = 'grow';"
        "subprocess.run(['/bin/sh', '-c', sys.argv[1]])"
    )
    process = subprocess.Popen([sys.executable, "-c", driver, command], env=stage_environment(), cwd=project)
    try:
        wait_for((project / "started").exists)
        trainer = int((project / ".scratch/grow.lock").read_text())
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not _runs(trainer), 10)


def test_a_trainer_whose_dvc_died_while_it_was_importing_ends_at_once(project):
    (project / "grow.py").write_text(TRAINER)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE)
    entry = {"pid": int(gone.stdout), "cmd": "dvc repro"}
    lock = project / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"write": {str(project / "data/grow"): entry}, "read": {}}))
    environment = stage_environment() | {"DVC_STAGE": "grow"}
    done = subprocess.run([sys.executable, "grow.py"], env=environment, cwd=project, timeout=60)
    assert done.returncode == -signal.SIGKILL


def _runs(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_run_stage_turns_what_a_user_can_mend_into_a_sentence(project):
    script = """
import errno
from pipeline.errors import UserError
from pipeline.tracking import run_stage
def main():
    raise {error}
run_stage(main)
"""
    cases = {
        "UserError('params.yaml: seed is odd.')": (2, "params.yaml: seed is odd."),
        "OSError(errno.ENOSPC, 'No space left on device', 'data/x')": (2, "data/x: the disk is full"),
        "KeyboardInterrupt()": (130, "Interrupted"),
        "RuntimeError('a bug')": (1, "Traceback"),
    }
    for error, (status, words) in cases.items():
        done = subprocess.run(
            [sys.executable, "-c", script.format(error=error)],
            env=stage_environment(), capture_output=True, text=True, cwd=project,
        )  # fmt: skip
        assert done.returncode == status and words in done.stderr
        assert (status == 1) == ("Traceback" in done.stderr)


def test_a_full_disk_is_found_behind_another_error():
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as cause:
            raise RuntimeError("could not save") from cause
    except RuntimeError as error:
        assert is_disk_full(error)
    assert not is_disk_full(ValueError("shape mismatch"))


def test_nothing_half_written_when_a_write_fails(project, monkeypatch):
    with start_run("grow", PARAMS) as run:
        run.hand_off("data/grow", tensors={"w": torch.ones(2)}, metrics={"a": 1})
    before = load_handoff("data/grow")
    real = Path.write_bytes

    def full(self, content):
        real(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device", str(self))

    with pytest.raises(OSError), start_run("grow", PARAMS) as run:
        monkeypatch.setattr(Path, "write_bytes", full)
        run.hand_off("data/grow", tensors={"w": torch.zeros(2)}, metrics={"a": 2})
    monkeypatch.undo()
    after = load_handoff(project / "data/grow")
    assert after.metrics == before.metrics and torch.equal(after.tensors["w"], torch.ones(2))
    assert not list((project / "data/grow").glob(".*"))


def test_broken_handoffs_name_the_file_and_the_remedy(project):
    with pytest.raises(UserError, match="data/grow: does not exist"):
        load_handoff("data/grow")
    folder = project / "data/grow"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{}")
    with pytest.raises(UserError, match="metrics.json: is missing"):
        load_handoff("data/grow")
    (folder / "metrics.json").write_text("[1")
    with pytest.raises(UserError, match="metrics.json: is no valid JSON"):
        load_handoff("data/grow")
    (folder / "metrics.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="model.safetensors: cannot be read"):
        _ = load_handoff("data/grow").tensors


def test_the_parent_run_is_replaced_if_the_store_lacks_it_and_closed_by_report(project):
    (project / ".scratch").mkdir()
    store.PARENT_FILE.write_text(json.dumps({"run_id": "0" * 32}))
    experiment = store.open_store(store.tracking_uri())[1]
    parent = store.parent_run(client(), experiment, "prepare")
    assert parent != "0" * 32 and store.parent_run(client(), experiment, "stream") == parent
    folder = project / "data/grow"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"wer/packed/test": 4.5}')
    store.close_parent(client())
    assert client().get_run(parent).info.status == "FINISHED"
    assert client().get_run(parent).data.metrics["wer/packed/test"] == 4.5
    assert store.parent_run(client(), experiment, "stream") == parent, "what comes after the report joins it"
    assert store.parent_run(client(), experiment, "prepare") != parent


def test_relative_tracking_files_are_made_absolute(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert store.tracking_uri() == f"sqlite:///{project / 'runs.db'}"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    workspace = project / ".dvc/tmp/exps/abc"
    workspace.mkdir(parents=True)
    monkeypatch.chdir(workspace)
    assert store.tracking_uri() == f"sqlite:///{project / 'mlflow.db'}", (
        "an experiment's copy logs to the project"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert store.tracking_uri() == "http://localhost:5000"


def test_metrics_of_each_model_reach_its_own_run(project):
    from pipeline.tracking import annotate_models

    with start_run("grow", PARAMS) as run:
        run.hand_off("data/teacher", metrics={"a": 1})
    annotate_models({"wer/teacher/test": 4.0, "bytes/teacher": 100, "wer/packed/test": np.float64(5.0)})
    assert client().get_run(run.run_id).data.metrics["wer"] == 4.0
    parent = client().get_run(run.run_id).data.tags["mlflow.parentRunId"]
    assert client().get_run(parent).data.metrics["wer"] == 5.0


def test_the_board_is_laid_out_in_the_form_that_this_mlflow_reads(project):
    import mlflow

    from pipeline.tracking import board

    page = board.lay_out()
    experiment = client().get_experiment_by_name(store.EXPERIMENT)
    state = json.loads(experiment.tags["mlflow.sharedViewState.tradeoffs"])
    assert page == (
        f"/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=tradeoffs&compareRunsMode=CHART"
    )
    assert {chart["type"] for chart in state["compareRunCharts"]} == {"PARALLEL", "SCATTER", "BAR"}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {
        state["compareRunSections"][0]["uuid"]
    }
    client().search_runs(
        [experiment.experiment_id], state["searchFilter"]
    )  # the filter is one that MLflow parses
    (script,) = (Path(mlflow.__file__).parent / "server/js/build/static/js").glob("main.*.js")
    known = script.read_text(encoding="utf-8")
    for word in (
        "mlflow.sharedViewState.",
        "viewStateShareKey",
        *(key for key in state if key.startswith("compare")),
    ):
        assert word in known, f"MLflow's page no longer knows {word}"
