"""Fixtures that several test files share: a tiny project of one fake stage, and an MLflow store made once."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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
