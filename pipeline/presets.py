"""Run the graph with other parameters in a copy of the project: `python -m pipeline.presets NAME`.

presets/NAME.yaml is laid over params.yaml in runs/NAME/, which shares the DVC cache and the MLflow store:
stages with equal inputs are not run twice. The same command again goes on where it stopped. On success
the metrics of `evaluate` become reports/NAME.json. presets/real.yaml reads SOTTO_MANIFEST's manifest.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import copy_atomically, read_yaml, write_atomically
from pipeline.params import from_mapping, unknown_key
from pipeline.processes import end_with_parent

KEPT = {"data", "reports"}  # written by the run itself, not copied
TRACKING_DEFAULT = "sqlite:///{}/mlflow.db"


def make_copy(root: Path, target: Path, overlay: Path | None, cache: Path | None = None) -> None:
    """Copy the project to `target`, merge `overlay` into params.yaml; `cache` stands in for the DVC cache.

    Of an earlier copy, modules that `root` lacks go; data, reports, scratch folders and dvc.lock stay.
    Raises UserError for an overlay with a key that params.yaml lacks, or an impossible value.
    """
    params = read_yaml(root / "params.yaml")
    if overlay is not None:
        params = merge(params, read_yaml(overlay))
    _name_the_manifest(params, root)
    from_mapping(params, f"presets/{overlay.name}" if overlay else "params.yaml")
    files = project_files(root)
    target.mkdir(parents=True, exist_ok=True)
    for package in ("pipeline", "tests"):
        for old in (target / package).rglob("*.py"):
            if old.relative_to(target) not in files:
                old.unlink()
    for file in files:
        source, copy = root / file, target / file
        if copy.exists() and (file.name == "dvc.lock" or copy.read_bytes() == source.read_bytes()):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy_atomically(source, copy)
    write_yaml(target / "params.yaml", params)
    _configure_dvc(target, cache or root / ".dvc/cache")


def project_files(root: Path) -> list[Path]:
    """What a copy needs: git's files and new ones that it does not ignore; without git, the known folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0 and listed.stdout:
        names = [Path(name) for name in listed.stdout.split("\0") if name]
    else:
        tops = [
            path
            for path in root.iterdir()
            if not path.name.startswith((".", "mlflow", "mlruns", "mlartifacts"))
        ]
        tops = [path for path in tops if path.name not in {"runs", "build"}] + [
            root / ".dvc/config",
            root / ".dvcignore",
        ]
        found = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*"))]
        names = [file.relative_to(root) for file in found if "__pycache__" not in file.parts]
    return [name for name in names if (root / name).is_file() and name.parts[0] not in KEPT]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section; one with another `name` replaces its namesake."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(base.get(key), Mapping) and isinstance(value, Mapping)
        same_kind = both and value.get("name", base[key].get("name")) == base[key].get("name")
        merged[key] = merge(base[key], value) if same_kind else value
    return merged


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Plain YAML, sections in the order given; unchanged files keep their time stamp."""
    from io import StringIO

    from ruamel.yaml import YAML

    stream = StringIO()
    YAML(typ="safe", pure=True).dump(dict(content), stream)
    if not path.exists() or path.read_text(encoding="utf-8") != stream.getvalue():
        write_atomically(path, stream.getvalue())


def run_preset(name: str, root: Path) -> int:
    """Build runs/`name`/ and run `dvc repro` there with live output; returns DVC's exit status."""
    overlay = root / "presets" / f"{name}.yaml"
    if not overlay.is_file():
        raise UserError(unknown_key(name, _names(root), f"presets/{name}.yaml: does not exist"))
    target = root / "runs" / name
    make_copy(root, target, overlay)
    status = repro(target, name, root)
    if status == 0 and name != "toy":
        from pipeline.evaluation.publish import publish

        written = publish(target, name, root).relative_to(root)
        print(f"runs/{name}: done; metrics in {written}, packed model in runs/{name}/data/pack")
    return status


def repro(folder: Path, preset: str, root: Path) -> int:
    """`dvc repro` in `folder`, logging to the MLflow store of `root` unless the environment names one."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "",
        "SOTTO_PRESET": preset,
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI") or TRACKING_DEFAULT.format(root),
    }
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "report"],
        cwd=folder,
        env=environment,
        check=False,
        preexec_fn=end_with_parent,  # or DVC would go on when this process is killed, and meet the next one
    ).returncode


def _name_the_manifest(params: dict[str, Any], root: Path) -> None:
    """SOTTO_MANIFEST stands in for `data.manifest`; the path is made absolute, for the run sits elsewhere."""
    data = params.get("data")
    if not isinstance(data, dict) or data.get("source") != "manifest":
        return
    manifest = os.environ.get("SOTTO_MANIFEST") or data.get("manifest")
    if not manifest:
        raise UserError(
            "data.manifest: names no manifest; set SOTTO_MANIFEST to a JSONL file (one utterance per line)."
        )
    path = (root / Path(manifest).expanduser()).resolve()
    if not path.is_file():
        raise UserError(
            f"{manifest}: is no file; SOTTO_MANIFEST or data.manifest must name a JSONL manifest."
        )
    params["data"] = {**data, "manifest": str(path)}


def _configure_dvc(target: Path, cache: Path) -> None:
    """A DVC project of its own, without git, on the DVC cache `cache`."""
    (target / ".dvc").mkdir(exist_ok=True)
    content = f"[core]\n    no_scm = true\n[cache]\n    dir = {cache}\n"
    write_atomically(target / ".dvc/config.local", content)


def _names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "presets").glob("*.yaml"))


def main() -> None:
    root = Path.cwd()
    try:
        if len(sys.argv) != 2:
            raise UserError(f"Name one preset: {', '.join(_names(root))}.")
        status = run_preset(sys.argv[1], root)
    except UserError as error:
        print(error, file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)


if __name__ == "__main__":
    main()
