"""Every notebook opens with a question, is paired with its .py twin, holds no output, and runs on the toy
run.
"""

import os

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks_for_a_tour_for_errors_and_for_tradeoffs():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_tour",
        "02_error_analysis",
        "03_compression_tradeoffs",
        "04_latency_and_lattices",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_and_its_py_twin_hold_the_same_cells(path):
    notebook, twin = nbformat.read(path, as_version=4), jupytext.read(path.with_suffix(".py"))
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in twin.cells
    ], f"run `jupytext --sync notebooks/{path.name}`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_asks_a_question_and_holds_no_output_and_trains_nothing(path):
    notebook = nbformat.read(path, as_version=4)
    assert "**Question:" in notebook.cells[0].source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not any("pipeline.training" in cell.source or "pipeline.stages" in cell.source for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_on_the_toy_run(path, toy_run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{toy_run}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(toy_run / "notebooks")}}
    client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources=where)
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.output_type in ("display_data", "execute_result") for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
