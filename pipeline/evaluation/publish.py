"""Where results go: a run's metrics to reports/<name>.json, and the README's table from all that is
committed.
"""

import json
from pathlib import Path

from pipeline.errors import UserError
from pipeline.evaluation.summary import readme_table, replace_between_markers
from pipeline.files import write_atomically, write_json

DEFAULT_TITLE = "`make repro`"
FULL_TITLE = "`make repro PRESET=full`"
PICTURE = "reports/plots/wer_against_bytes.png"


def all_metrics(project: str | Path) -> dict[str, float]:
    """metrics.json of `data/evaluate` with seconds/<stage> of every stage that has run in `project`.

    Raises UserError if nothing was evaluated there.
    """
    data = Path(project) / "data"
    evaluated = data / "evaluate/metrics.json"
    if not evaluated.is_file():
        raise UserError(f"{evaluated}: is missing; run `dvc repro evaluate` in {project} first.")
    seconds = {
        key: value
        for file in sorted(data.glob("*/metrics.json"))
        for key, value in _read(file).items()
        if key.startswith("seconds/")
    }
    return {**seconds, **_read(evaluated)}


def publish(run_dir: str | Path, name: str, project: str | Path = ".") -> Path:
    """Copy the metrics of a preset's run to `<project>/reports/<name>.json` and write the README's table
    anew.

    `full` becomes a column of the table, every name that begins with `real` a row; other names (`joint`,
    `qat-first`) are only kept. Returns the path written.
    """
    path = Path(project) / "reports" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, all_metrics(run_dir))
    update_readme(project)
    return path


def update_readme(project: str | Path) -> None:
    """Rewrite what stands between the README's result markers; nothing happens if there is no README or no
    result.
    """
    readme = Path(project) / "README.md"
    columns, real = published(project)
    if not readme.is_file() or not columns:
        return
    text = readme.read_text(encoding="utf-8")
    generated = readme_table(columns, real)
    if (Path(project) / PICTURE).is_file():
        generated += f"\n\n![WER against bytes]({PICTURE})"
    changed = replace_between_markers(text, generated)
    if changed != text:
        write_atomically(readme, changed)


def published(project: str | Path) -> tuple[dict[str, dict], dict[str, dict]]:
    """({column title: metrics}, {row title: metrics}) from data/evaluate and reports/*.json of `project`."""
    reports = Path(project) / "reports"
    columns, real = {}, {}
    if (Path(project) / "data/evaluate/metrics.json").is_file():
        columns[DEFAULT_TITLE] = all_metrics(project)
    if (reports / "full.json").is_file():
        columns[FULL_TITLE] = _read(reports / "full.json")
    for path in sorted(reports.glob("real*.json")):
        variant = path.stem.removeprefix("real").strip("-_ ").replace("-", " ")
        real[f"real speech{', ' + variant if variant else ''}"] = _read(path)
    return columns, real


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no valid JSON ({error})") from error
