"""`start_run`: one stage's MLflow run, its scratch folder and what it hands on."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import write_json
from pipeline.tracking import scratch as scratch_folders
from pipeline.tracking import store
from pipeline.tracking.handoff import load_handoff, write_handoff

if TYPE_CHECKING:
    import pandas
    from mlflow.tracking import MlflowClient
    from torch import Tensor

    from pipeline.tracking.lightning_logger import StageLogger

FLUSH_S = 10.0  # metrics wait this long, so that no training step waits for the database
LARGEST_ARTIFACT = 64 << 20  # bytes; larger files stay in data/, where DVC keeps them
MODEL_OF_STAGE = {
    "teacher": "teacher",
    "student": "student",
    "sparsify": "sparse",
    "qat": "qat",
    "pack": "packed",
}


class Run:
    """The open run of a stage. Made by `start_run`."""

    def __init__(
        self, stage: str, params: dict, client: "MlflowClient", run_id: str, scratch: Path, parents: dict
    ):
        self.stage, self.params, self.run_id, self.scratch, self.parents = (
            stage,
            params,
            run_id,
            scratch,
            parents,
        )
        self._client = client
        self._waiting: list = []
        self._flushed_at = self._started_at = time.monotonic()
        self._seconds_before = float(store.read_json(scratch / "run.json").get("seconds", 0.0))

    @property
    def seconds(self) -> float:
        """Time the stage has run, the part before a kill included (as of its last flush)."""
        return self._seconds_before + time.monotonic() - self._started_at

    @cached_property
    def logger(self) -> "StageLogger":
        """Lightning's MLFlowLogger on this run."""
        from pipeline.tracking.lightning_logger import StageLogger

        return StageLogger(self)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Queue `metrics`; they reach MLflow within seconds, in one call."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._waiting += [Metric(key, float(value), now_ms, step) for key, value in metrics.items()]
        if time.monotonic() - self._flushed_at > FLUSH_S or len(self._waiting) > 900:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), 900):
            self._client.log_batch(self.run_id, metrics=waiting[start : start + 900])
        write_json(self.scratch / "run.json", {"run_id": self.run_id, "seconds": round(self.seconds, 3)})
        self._flushed_at = time.monotonic()

    def log_params(self, params: Mapping[str, Any]) -> None:
        store.log_params(self._client, self.run_id, params)

    def log_artifact(self, path: str | Path) -> None:
        """Copy a file (not a large one) into the run's artifacts."""
        if Path(path).stat().st_size <= LARGEST_ARTIFACT:
            self._client.log_artifact(self.run_id, str(path))

    def log_table(self, table: "pandas.DataFrame", name: str) -> None:
        """A table that `mlflow.load_table(name)` reads back; `name` ends in .json."""
        self._client.log_table(self.run_id, table, name)

    def log_dataset(self, table: "pandas.DataFrame", name: str, digest: str) -> None:
        """Record what the stage read: name, digest (its first 36 characters) and size."""
        import json

        from mlflow.entities import Dataset, DatasetInput

        profile = json.dumps({"num_rows": len(table), "num_columns": len(table.columns)})
        source = json.dumps({"uri": f"data/{name}"})
        dataset = Dataset(name, digest[:36], "local", source, profile=profile)
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, tags=[])])

    def hand_off(
        self,
        folder: str | Path,
        *,
        tensors: "Mapping[str, Tensor] | None" = None,
        card: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        files: Mapping[str, str | bytes | Path] | None = None,
    ) -> None:
        """Write `folder` (whole files or none; what lies in scratch is moved) and log it to MLflow.

        The card gains stage, run_id, parents' run ids, commit, params; the metrics gain seconds/<stage>.
        """
        folder = Path(folder)
        full_card = {
            **(card or {}),
            "stage": self.stage,
            "run_id": self.run_id,
            "parents": self.parents,
            "commit": store.commit(),
            "params": self.params,
        }
        full_metrics = {**(metrics or {}), f"seconds/{self.stage}": round(self.seconds, 3)}
        write_handoff(folder, tensors, full_card, full_metrics, files or {}, self.scratch)
        self.log_metrics(full_metrics)
        names = [
            "card.json",
            "metrics.json",
            *(["model.safetensors"] if tensors is not None else []),
            *(files or {}),
        ]
        for path in (folder / name for name in names):
            if path.is_file():
                self.log_artifact(path)


@contextmanager
def start_run(stage: str, params: Any, parents: Sequence[str] = ()) -> Iterator[Run]:
    """Run a stage: lock it, open its scratch folder and its MLflow run under the parent run of this repro.

    `params` is a dataclass or mapping; `parents` names the stages whose hand-offs are read. A run that was
    killed is resumed under the same id. The scratch folder goes when the block ends well and stays otherwise.
    Raises UserError if another process runs the stage here, or if an input is missing.
    """
    plain = asdict(params) if is_dataclass(params) and not isinstance(params, type) else dict(params)
    with scratch_folders.stage_lock(stage):
        scratch = scratch_folders.open_scratch(stage)
        parent_ids = {name: load_handoff(Path("data") / name).card.get("run_id", "") for name in parents}
        client, experiment = store.open_store(store.tracking_uri())
        for stale in scratch_folders.other_scratches(stage, scratch):
            store.mark_killed(client, stale)
            scratch_folders.remove(stale)
        run_id = store.child_run(client, experiment, stage, scratch, parent_ids)
        run = Run(stage, plain, client, run_id, scratch, parent_ids)
        run.log_params(plain)
        try:
            yield run
            run.flush()
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            _end_unfinished(run, client, "KILLED" if stopped else "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
        if stage == "report":
            store.close_parent(client)
        scratch_folders.remove(scratch)


def _end_unfinished(run: Run, client: "MlflowClient", status: str) -> None:
    """Best effort: a full disk must not hide the error that is on its way up."""
    try:
        run.flush()
        client.set_terminated(run.run_id, status)
    except Exception as error:
        print(f"MLflow: run {run.run_id} could not be marked {status} ({type(error).__name__}).")


def annotate_run(run_id: str, metrics: Mapping[str, float]) -> bool:
    """Add `metrics` to a finished run; False if this store does not know it (a hand-off made elsewhere)."""
    client, _ = store.open_store(store.tracking_uri())
    if not store.find_run(client, run_id):
        return False
    store.log_metrics(client, run_id, metrics)
    return True


def annotate_models(metrics: Mapping[str, float]) -> None:
    """Put wer, bytes, bits_per_weight and zeros of each model (flat keys of metrics.json) on its stage's run.

    The parent run of this repro carries the packed model's. MLflow's charts compare these plain keys.
    """
    for stage, model in MODEL_OF_STAGE.items():
        plain = plain_metrics(metrics, model)
        card = Path("data") / stage / "card.json"
        if plain and card.exists():
            annotate_run(load_handoff(card.parent).card.get("run_id", ""), plain)
    client, experiment = store.open_store(store.tracking_uri())
    store.log_metrics(
        client, store.parent_run(client, experiment, "evaluate"), plain_metrics(metrics, "packed")
    )


def plain_metrics(metrics: Mapping[str, float], model: str) -> dict[str, float]:
    """`wer/<model>/test` → wer, `bytes/<model>` → bytes, and so on; what is absent stays absent."""
    keys = {"wer": f"wer/{model}/test"} | {
        key: f"{key}/{model}" for key in ("bytes", "bits_per_weight", "zeros")
    }
    return {plain: metrics[key] for plain, key in keys.items() if key in metrics}
