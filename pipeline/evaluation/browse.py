"""What the notebooks need to look at a finished run: where it lies, its metrics, its utterances, their
sound.
"""

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.evaluation.publish import all_metrics
from pipeline.evaluation.summary import models_in_order


@dataclass(frozen=True)
class FinishedRun:
    """The last run in `project`; tables are read when asked for."""

    project: Path

    @cached_property
    def metrics(self) -> dict[str, float]:
        return all_metrics(self.project)

    @property
    def models(self) -> list[str]:
        """The steps in the order of the graph."""
        return models_in_order(self.metrics)

    @cached_property
    def utterances(self) -> pd.DataFrame:
        """One row per model and utterance (see `wer.utterance_table`)."""
        return pd.read_parquet(self.project / "data/evaluate/utterances.parquet")

    def card(self, stage: str) -> dict:
        """card.json of a stage: parameters, commit, run ids."""
        return json.loads((self.project / "data" / stage / "card.json").read_text(encoding="utf-8"))

    def curves(
        self, stages: Sequence[str] = ("teacher", "student", "sparsify", "qat")
    ) -> dict[str, pd.DataFrame]:
        """{stage: its training curve} of the stages that trained."""
        files = {stage: self.project / "data" / stage / "curves.csv" for stage in stages}
        return {stage: pd.read_csv(file) for stage, file in files.items() if file.is_file()}

    @cached_property
    def _cuts(self) -> dict:
        warnings.filterwarnings(
            "ignore", message="IProgress not found"
        )  # tqdm, in a notebook without widgets
        from pipeline.corpus.shards import load_cuts

        return {cut.id: cut for cut in load_cuts(self.project / "data/prepare/test", with_audio=True)}

    def audio(self, utterance_id: str) -> np.ndarray:
        """samples_S of a test utterance, 16 kHz."""
        return self._cuts[utterance_id].load_audio()[0]

    def features(self, utterance_id: str) -> np.ndarray:
        """features_NF of a test utterance, 10 ms frames."""
        return np.asarray(self._cuts[utterance_id].load_features(), dtype=np.float32)


def enter_project() -> FinishedRun:
    """Go up to the project's folder (a notebook starts in notebooks/) and open its last run.

    Raises UserError if there is none yet.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "data/evaluate/metrics.json").is_file():
            os.chdir(folder)
            return FinishedRun(folder)
    raise UserError(f"no finished run in {here} or above it; run `make repro` first")
