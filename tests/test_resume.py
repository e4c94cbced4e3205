"""`kill -9` of `dvc repro` in the middle of a training, then `dvc repro`: no orphan, and the same numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import ROOT, copy_of, dvc, toy_environment

STAGE = "student"
FORCED = ("repro", "--force", "--no-run-cache", "--single-item", STAGE)


@pytest.fixture(scope="module")
def workspace(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run with a student that trains long enough to be killed before it ends, however slow the killer."""
    folder = copy_of(toy_run, tmp_path_factory.mktemp("resume") / "project")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["student"]["trainer"]["epochs"] = 30
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def start(workspace: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "dvc", *FORCED]
    return subprocess.Popen(command, cwd=workspace, env=toy_environment(workspace), stdout=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen, happened, seconds: float = 120.0) -> None:
    """SIGKILL for DVC alone as soon as `happened()` and its stage runs; that ends too, if need be after its imports."""
    deadline, children = time.monotonic() + seconds, []
    while not (happened() and children):
        assert process.poll() is None and time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE], "an orphan trains on"


def without_times(file: Path) -> dict:
    return {
        key: value for key, value in json.loads(file.read_text()).items() if not key.startswith("seconds/")
    }


def run_id_in(scratch: Path) -> str:
    return json.loads((scratch / "run.json").read_text())["run_id"]


def test_a_killed_training_goes_on_to_the_same_numbers(workspace):
    scratches, folder = workspace / ".scratch", workspace / "data" / STAGE
    whole = dvc(workspace, *FORCED)
    assert whole.returncode == 0, whole.stdout
    metrics, weights = without_times(folder / "metrics.json"), (folder / "model.safetensors").read_bytes()

    def begun() -> bool:
        return bool(list(scratches.glob(f"{STAGE}-*/run.json")))

    def saved() -> bool:
        return bool(list(scratches.glob(f"{STAGE}-*/**/*.ckpt")))

    kill_when(start(workspace), lambda: True)  # while it is importing
    kill_when(start(workspace), begun)
    kill_when(start(workspace), saved)
    (scratch,) = scratches.glob(f"{STAGE}-*")
    killed = run_id_in(scratch)
    done = dvc(workspace, *FORCED)
    assert done.returncode == 0, done.stdout
    assert not scratch.exists()
    assert without_times(folder / "metrics.json") == metrics
    assert (folder / "model.safetensors").read_bytes() == weights
    card = json.loads((folder / "card.json").read_text())
    assert card["run_id"] == killed, "the killed MLflow run goes on"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere DVC goes on until its stage has ended")
def test_dvc_ends_with_the_preset_that_started_it(tmp_path):
    """A preset that was killed once left its DVC behind, which went on beside the next one."""
    (tmp_path / "python").write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    code = (
        "import sys; from pathlib import Path; from pipeline import presets; sys.executable = sys.argv[1]; "
    )
    code += "presets.repro(Path(sys.argv[2]), 'toy', Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(tmp_path / "python"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as preset:
        driver = psutil.Process(int(preset.stdout.readline()))
        assert driver.is_running()
        preset.kill()
        driver.wait(timeout=10)
