"""Fixtures that several test files share: a tiny project of one fake stage, and an MLflow store made once."""

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.presets import make_copy

# The same examples every time, so that a red test is the change's doing; HYPOTHESIS_PROFILE=random draws others.
settings.register_profile("same", derandomize=True)
settings.register_profile("random")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables; making them takes seconds, copying them does not."""
    folder = tmp_path_factory.mktemp("store")
    script = (
        "from mlflow.tracking import MlflowClient; import sys; MlflowClient(sys.argv[1]).search_experiments()"
    )
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    subprocess.run([sys.executable, "-c", script, uri], cwd=folder, check=True, capture_output=True)
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a project with one stage, `grow`, that depends on one file, and its own MLflow store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "params.yaml").write_text("seed: 1\ngrow: {steps: 3}\n")
    (tmp_path / "input.txt").write_text("soil")
    (tmp_path / "dvc.yaml").write_text(
        textwrap.dedent("""
        stages:
          grow:
            cmd: python grow.py
            params: [seed, grow]
            deps: [input.txt]
            outs: [data/grow/model.safetensors]
        """)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("SOTTO_PRESET", raising=False)
    return tmp_path


def stage_environment(**extra: str) -> dict[str, str]:
    """The environment of a stage that a test starts: this interpreter, and the package under test."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", **extra}


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A copy of the project in which `dvc repro` has run on toy parameters; made once for all test processes.

    Its MLflow store is mlflow.db inside. Only read it; a test that runs stages uses `copy_of(toy_run, …)`.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, log = shared / "toy", shared / "toy.log"
    with open(shared / "toy.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            make_copy(ROOT, folder, ROOT / "presets/toy.yaml", cache=shared / "toy_cache")
            shutil.copy(empty_store, folder / "mlflow.db")
            done = dvc(folder, "repro")
            log.write_text(f"{done.returncode}\n{done.stdout}")
    status, _, output = log.read_text().partition("\n")
    if status != "0":
        pytest.fail(f"dvc repro on toy parameters ended with {status}:\n{output[-6000:]}")
    return folder


def copy_of(toy: Path, target: Path) -> Path:
    """The finished toy run again, in `target`, with a DVC cache and an MLflow store of its own."""
    shutil.copytree(toy, target, symlinks=True, ignore=shutil.ignore_patterns("tmp", "__pycache__"))
    shutil.copytree(toy.parent / "toy_cache", target / ".dvc/cache")
    (target / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    return target


def toy_environment(folder: Path, **extra: str) -> dict[str, str]:
    store = f"sqlite:///{folder / 'mlflow.db'}"
    return stage_environment(
        MLFLOW_TRACKING_URI=store, PYTHONPATH="", SOTTO_PRESET="toy", OMP_NUM_THREADS="1", **extra
    )


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DVC in `folder`; stdout and stderr come together."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder, env=toy_environment(folder), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
