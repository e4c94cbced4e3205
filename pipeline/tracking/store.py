"""The MLflow side: one experiment, a parent run per `dvc repro`, a child run per stage."""

import json
import logging
import os
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.files import write_json

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "sotto"
PARENT_FILE = Path(".scratch/repro.json")
PARENT_TAG = "mlflow.parentRunId"
AFTER_REPORT = ("language_model", "stream")  # stages beside the main job; they join the repro that was last
LONGEST_PARAM = 6000  # characters, MLflow's limit
BATCH = 100  # parameters per call, MLflow's limit
SQLITE = "sqlite:///"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the project's folder; file paths made absolute.

    `dvc exp run --temp` works in a copy below `.dvc/tmp`: its runs belong into the project's own file.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{SQLITE}mlflow.db"
    if not uri.startswith(SQLITE):
        return uri
    here = Path.cwd()
    root = next((folder.parent for folder in here.parents if folder.name == ".dvc"), here)
    return SQLITE + str(root / uri.removeprefix(SQLITE))


@cache
def open_store(uri: str) -> "tuple[MlflowClient, str]":
    """The client and the experiment's id; made if need be. Raises UserError if the store cannot be opened."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    for name in ("alembic", "mlflow"):  # MLflow sets their levels when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return client, client.create_experiment(EXPERIMENT, artifact_location=_artifact_folder(uri))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return client, experiment.experiment_id
    except Exception as error:  # whatever the store's driver raises
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"MLFLOW_TRACKING_URI: {uri} cannot be opened ({first_line}).") from error


def _artifact_folder(uri: str) -> str | None:
    """Beside the SQLite file; a server chooses its own."""
    return str(Path(uri.removeprefix(SQLITE)).parent / "mlartifacts") if uri.startswith(SQLITE) else None


def parent_run(client: "MlflowClient", experiment: str, stage: str) -> str:
    """The open parent run of this `dvc repro`: after a kill the same, a new one if the store lacks it."""
    known = read_json(PARENT_FILE)
    run_id = known.get("run_id") or (known.get("closed_run_id") if stage in AFTER_REPORT else None)
    if run_id and find_run(client, run_id):
        return run_id
    preset = os.environ.get("SOTTO_PRESET", "default")
    tags = {"mlflow.runName": f"repro {preset}", "preset": preset, "family": "repro", "git_commit": commit()}
    run_id = client.create_run(experiment, tags=tags).info.run_id
    log_params(client, run_id, {"preset": preset})
    write_json(PARENT_FILE, {"run_id": run_id})
    return run_id


def close_parent(client: "MlflowClient") -> None:
    """End the parent run of this repro with every stage's metrics; the next repro opens another."""
    run_id = read_json(PARENT_FILE).get("run_id")
    if run_id and find_run(client, run_id):
        for file in sorted(Path("data").glob("*/metrics.json")):
            log_metrics(client, run_id, read_json(file))
        client.log_artifact(run_id, "params.yaml")
        client.set_terminated(run_id, "FINISHED")
    write_json(PARENT_FILE, {"closed_run_id": run_id})


def child_run(
    client: "MlflowClient", experiment: str, stage: str, scratch: Path, parents: Mapping[str, str]
) -> str:
    """The run of this stage: the one that the scratch folder resumes, or a new one under the open parent."""
    known = read_json(scratch / "run.json").get("run_id")
    if known and find_run(client, known):
        client.update_run(known, status="RUNNING")
        client.set_tag(known, "resumed", "true")
        return known
    tags = {
        "mlflow.runName": stage,
        PARENT_TAG: parent_run(client, experiment, stage),
        "family": stage,
        "preset": os.environ.get("SOTTO_PRESET", "default"),
        "git_commit": commit(),
        "fingerprint": scratch.name.rpartition("-")[2],
        **{f"parent/{name}": run_id for name, run_id in parents.items()},
    }
    run_id = client.create_run(experiment, tags=tags).info.run_id
    write_json(scratch / "run.json", {"run_id": run_id, "seconds": 0.0})
    return run_id


def mark_killed(client: "MlflowClient", scratch: Path) -> None:
    """The run that a killed stage left RUNNING in `scratch`, which nobody will resume."""
    run_id = read_json(scratch / "run.json").get("run_id")
    run = find_run(client, run_id) if run_id else None
    if run is not None and run.info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")


def find_run(client: "MlflowClient", run_id: str) -> Any:
    """The run, or None if this store has none of that id (or has it in its bin)."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return run if run.info.lifecycle_stage == "active" else None


def log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    """Nested mappings become dotted keys."""
    from mlflow.entities import Param

    entries = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in flatten(params).items()]
    for start in range(0, len(entries), BATCH):
        client.log_batch(run_id, params=entries[start : start + BATCH])


def log_metrics(client: "MlflowClient", run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """All of `metrics` in one call."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    client.log_batch(
        run_id, metrics=[Metric(key, float(value), now_ms, step) for key, value in metrics.items()]
    )


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@cache
def commit() -> str:
    """The commit that runs, with `-modified` if pipeline/ differs from it; `unknown` outside git."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "HEAD")
        if head.returncode != 0:
            return "unknown"
        modified = git("status", "--porcelain", "--", "pipeline").stdout.strip()
        return head.stdout.strip() + ("-modified" if modified else "")
    except OSError:
        return "unknown"


def read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
