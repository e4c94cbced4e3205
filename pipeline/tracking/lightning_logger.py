"""Lightning's MLFlowLogger on a run that `start_run` owns: metrics are batched, a fit ends no run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from pipeline.tracking import store

if TYPE_CHECKING:
    from pipeline.tracking.run import Run


class StageLogger(MLFlowLogger):
    def __init__(self, run: "Run"):
        super().__init__(store.EXPERIMENT, tracking_uri=store.tracking_uri(), run_id=run.run_id)
        self._run = run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._run.log_metrics(metrics, step or 0)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The stage's parameters are logged by `start_run`."""

    def finalize(self, status: str = "success") -> None:
        """A stage may fit more than once; `start_run` ends the run."""
        self._run.flush()
