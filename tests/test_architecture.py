"""House rules as tests: layers, names, sizes, and nothing that executes data."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from pipeline.files import read_yaml
from pipeline.params import SHARED, STAGES
from tests.conftest import ROOT, stage_environment

GRAPH = read_yaml(ROOT / "dvc.yaml")["stages"]
MODULES = sorted((ROOT / "pipeline").rglob("*.py"))
PLUMBING = {"pipeline/params.py", "pipeline/errors.py", "pipeline/files.py", "pipeline/processes.py"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.fail("the house rules are about the files that git tracks; run the tests in a clone")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_imports_go_down_the_layers():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=stage_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def imported_modules(path: Path) -> frozenset[Path]:
    """Project files that `path` imports when it runs, anywhere in it."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for_types = {id(inner) for guard in guards for statement in guard.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        names = []
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "pipeline":
                module = ROOT.joinpath(*parts)
                found |= {
                    file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()
                }
    return frozenset(found)


def code_behind(stage: str) -> list[str]:
    """Project files that the stage imports, directly or not, no plumbing; a folder stands for its files."""
    seen: set[Path] = set()
    waiting = [ROOT / f"pipeline/stages/{stage}.py"]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(ROOT).as_posix()
        if path not in seen and name not in PLUMBING and not name.startswith("pipeline/tracking/"):
            seen.add(path)
            waiting += imported_modules(path)
    code = {path for path in seen if path.name != "__init__.py"}
    whole = {
        path.parent for path in code if set(path.parent.glob("*.py")) <= seen | {path.parent / "__init__.py"}
    }
    names = {path.parent if path.parent in whole else path for path in code}
    return sorted(name.relative_to(ROOT).as_posix() for name in names)


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_watches_exactly_the_code_that_a_stage_uses(stage):
    """Editing a loss retrains what uses it, and nothing else."""
    watched = [name for name in GRAPH[stage]["deps"] if name.startswith("pipeline/")]
    assert watched == code_behind(stage), "`python -m tests.test_architecture` writes the list into dvc.yaml"


def write_code_into_dvc_yaml() -> None:
    """Replace the `- pipeline/…` lines of every stage by the code that it imports now."""
    path, stage, lines = ROOT / "dvc.yaml", "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"  (\w+):", line):
            stage = heading[1]
        if line == "    deps:":
            lines += [line, *(f"      - {name}" for name in code_behind(stage))]
        elif not line.startswith("      - pipeline/"):
            lines.append(line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_one_name_in_six_places():
    params, readme = read_yaml(ROOT / "params.yaml"), (ROOT / "README.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "pipeline/stages").glob("*.py")} - {"__init__"}
    assert set(STAGES) == set(GRAPH) == modules
    assert set(STAGES) == set(params) - set(SHARED)
    for stage in STAGES:
        described = GRAPH[stage]
        assert described["cmd"] == f"python -m pipeline.stages.{stage}"
        names = [*described["outs"], *described["metrics"], *described.get("plots", [])]
        outs = [next(iter(name)) if isinstance(name, dict) else name for name in names]
        assert all(name.startswith((f"data/{stage}/", "reports/")) for name in outs), outs
        assert f"data/{stage}/metrics.json" in outs and f"data/{stage}/card.json" in outs
        assert re.search(rf"\b{stage}\b", readme), f"README.md does not mention {stage}"


def test_stages_are_thin_and_end_in_run_stage():
    for stage in STAGES:
        lines = (ROOT / f"pipeline/stages/{stage}.py").read_text(encoding="utf-8").rstrip().splitlines()
        assert lines[-2:] == ['if __name__ == "__main__":', "    run_stage(main)"], stage
        assert len(lines) <= 60, f"{stage} has {len(lines)} lines"


def test_files_stay_small():
    long = {path.name: count for path in MODULES if (count := len(path.read_text().splitlines())) > 400}
    assert not long


def test_nothing_executes_data():
    forbidden = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names}
                module = (getattr(node, "module", None) or "").split(".")[0]
                assert not forbidden & (names | {module}), path
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {
                    "eval",
                    "exec",
                    "compile",
                    "np.load",
                    "numpy.load",
                } or "allow_pickle" in ast.unparse(node)
                if name == "torch.load":
                    assert any(k.arg == "weights_only" and k.value.value is True for k in node.keywords), path


def test_the_lock_is_hashed_and_names_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "://" not in (ROOT / "requirements.in").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.M))
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.in").read_text(), re.M):
        assert pinned[name.replace(".", "-")] == version if name not in pinned else pinned[name] == version
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert len(entries) > 200 and all("--hash=sha256:" in entry for entry in entries)


def test_notebooks_hold_no_outputs():
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" in path.parts:
            continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        kept = [
            cell
            for cell in cells
            if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"])
        ]
        assert not kept, f"{path}: run `nbstripout {path.name}`"


def test_no_file_names_a_folder_of_one_machine():
    pattern = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/[a-z]")
    for path in tracked_files():
        if (
            path.suffix in {".py", ".yaml", ".toml", ".lock", ".in", ".ipynb", ".json"}
            or path.name == "Makefile"
        ):
            assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_help_answers_at_once_without_torch():
    heavy = "{'torch', 'mlflow', 'pytorch_lightning'}"
    script = f"import sys, pipeline.cli; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], env=stage_environment(), cwd=ROOT).returncode == 0


if __name__ == "__main__":
    write_code_into_dvc_yaml()
