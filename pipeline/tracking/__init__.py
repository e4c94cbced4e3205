"""One MLflow run per stage, nested under one run per repro; scratch folders; hand-offs."""

from pipeline.tracking.handoff import Handoff, load_handoff
from pipeline.tracking.process import run_stage
from pipeline.tracking.run import Run, annotate_models, annotate_run, start_run

__all__ = ["Handoff", "Run", "annotate_models", "annotate_run", "load_handoff", "run_stage", "start_run"]
