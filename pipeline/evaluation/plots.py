"""The report's pictures: matplotlib, no display, the same bytes for the same numbers.

Every function takes plain records or a table and returns a Figure; `save` writes it as PNG and SVG. One
colour per step, everywhere: a reader learns it once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.evaluation.size import megabytes
from pipeline.evaluation.wer import wer_by

COLOURS = {
    "teacher": "#3b4a6b",
    "student": "#3a86a8",
    "sparse": "#5aa469",
    "qat": "#e0a030",
    "packed": "#c8443a",
}
LABELS = {
    "teacher": "teacher, fp32",
    "student": "student, fp32",
    "sparse": "half zeros",
    "qat": "few levels",
    "packed": "packed file",
}
STYLE = {
    "figure.dpi": 100, "savefig.dpi": 160, "svg.hashsalt": "sotto", "svg.fonttype": "path",
    "font.size": 10.5, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#888888", "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.8, "legend.frameon": False,
}  # fmt: skip


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Writes `<folder>/<name>.png` and `.svg` without dates inside; returns both paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with matplotlib.rc_context(STYLE):
        figure.savefig(paths[0], metadata={"Software": None})
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def draw_report(
    folder: str | Path,
    rows: Sequence[Mapping],
    table: pd.DataFrame,
    curves: Mapping[str, pd.DataFrame],
    zeros: Mapping[str, Mapping[str, float]],
) -> list[Path]:
    """Every picture of the report; arguments as those of the functions below. Returns the files."""
    figures = {
        "wer_against_bytes": wer_against_bytes(rows),
        "training_curves": training_curves(curves),
        "zeros_per_layer": zeros_per_layer(zeros),
    }
    if table["snr_db"].notna().any():
        figures["wer_by_snr"] = wer_by_snr(table)
    ends = [rows[0]["model"], rows[-1]["model"]]
    for column in ("voice", "intent", "source"):
        if table[column].nunique() > 1:
            figures[f"wer_by_{column}"] = wer_by_group(table, column, ends, f"WER by {column}")
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def wer_against_bytes(rows: Sequence[Mapping], title: str = "WER against bytes") -> Figure:
    """Rows {model, wer, low, high, bytes} in the order of the graph; bars are 95 % intervals, bytes are
    logarithmic.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(7.2, 4.3)
        sizes = [row["bytes"] for row in rows]
        wers = [row["wer"] for row in rows]
        axes.plot(sizes, wers, color="#bbbbbb", linewidth=1.2, zorder=1)
        for index, row in enumerate(rows):
            colour = COLOURS.get(row["model"], "#666666")
            bars = [[max(0.0, row["wer"] - row["low"])], [max(0.0, row["high"] - row["wer"])]]
            axes.errorbar(
                row["bytes"], row["wer"], yerr=bars, fmt="o", color=colour, markersize=8, capsize=4, zorder=3
            )
            axes.annotate(
                f"{LABELS.get(row['model'], row['model'])}\n{row['wer']:.1f} %, {megabytes(row['bytes'])}",
                (row["bytes"], row["low"] if index % 2 else row["high"]),
                xytext=(0, -7 if index % 2 else 7),
                textcoords="offset points",
                ha="center",
                va="top" if index % 2 else "bottom",  # neighbours must not cover each other
                fontsize=9,
                color=colour,
            )
        axes.set_xscale("log")
        axes.set_xlim(min(sizes) / 2.5, max(sizes) * 2.5)
        axes.set_ylim(0, max(row["high"] for row in rows) * 1.45 + 1e-6)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: megabytes(size)))
        axes.set(
            xlabel="size of the recogniser (logarithmic)",
            ylabel="word error rate, % (95 % interval)",
            title=title,
        )
    return figure


def training_curves(curves: Mapping[str, pd.DataFrame], title: str = "Training") -> Figure:
    """{stage: table with a column `epoch`, dev WER in `wer/…/dev` and/or a loss column}: WER left, loss
    right.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for stage, table in curves.items():
            colour = COLOURS.get({"sparsify": "sparse"}.get(stage, stage), "#666666")
            for axes, column in ((left, "dev_wer"), (right, "loss")):
                points = table[["epoch", column]].dropna()
                axes.plot(
                    points["epoch"], points[column], marker="o", markersize=3.5, color=colour, label=stage
                )
        left.set(xlabel="epoch of the stage", ylabel="dev WER, %", title=title)
        right.set(xlabel="epoch of the stage", ylabel="training loss")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            if axes.lines:
                axes.legend(fontsize=9)
    return figure


def zeros_per_layer(
    zeros_by_model: Mapping[str, Mapping[str, float]], title: str = "Zeros per matrix"
) -> Figure:
    """{model: {matrix name: fraction of zeros}} as horizontal bars, one row per matrix."""
    names = list(next(iter(zeros_by_model.values()), {}))
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(7.2, 1.4 + 0.3 * max(1, len(names)))
        height = 0.8 / max(1, len(zeros_by_model))
        for index, (model, fractions) in enumerate(zeros_by_model.items()):
            rows = np.arange(len(names)) + (index - (len(zeros_by_model) - 1) / 2) * height
            values = [100 * fractions.get(name, 0.0) for name in names]
            axes.barh(
                rows,
                values,
                height=height,
                color=COLOURS.get(model, "#666666"),
                label=LABELS.get(model, model),
            )
        axes.axvline(50, color="#999999", linewidth=1, linestyle="--")
        axes.set_yticks(np.arange(len(names)), names, fontsize=8.5)
        axes.invert_yaxis()
        axes.set(xlim=(0, 100), xlabel="weights that are exactly zero, %", title=title)
        if zeros_by_model:
            axes.legend(fontsize=9, loc="lower right")
    return figure


def wer_by_snr(table: pd.DataFrame, edges_db: Sequence[float] = (0, 5, 10, 15, 20, 25, 30, 40)) -> Figure:
    """WER by signal-to-noise ratio, one line per model; `table` has all models' utterances."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 3.8)
        bins = pd.cut(table["snr_db"], edges_db)
        for model, rows in table.assign(bin=bins).dropna(subset=["bin"]).groupby("model", sort=False):
            result = wer_by(rows, "bin").sort_index()
            axes.plot([interval.mid for interval in result.index], result["wer"], marker="o", markersize=4,
                      color=COLOURS.get(model, "#666666"), label=LABELS.get(model, model))  # fmt: skip
        axes.set(xlabel="signal-to-noise ratio, dB", ylabel="word error rate, %", title="WER by noise")
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
        if axes.lines:
            axes.legend(fontsize=9, ncols=3, loc="upper right")
    return figure


def wer_by_group(table: pd.DataFrame, column: str, models: Sequence[str], title: str) -> Figure:
    """Dots: WER of every value of `column` (voice, intent, accent) for some models, the worst on top."""
    parts = {model: wer_by(table[table["model"] == model], column)["wer"] for model in models}
    order = parts[models[-1]].sort_values().index
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(6.4, 1.4 + 0.24 * max(1, len(order)))
        rows = np.arange(len(order))
        frame = pd.DataFrame(parts).reindex(order)
        axes.hlines(rows, frame.min(axis=1), frame.max(axis=1), color="#cccccc", linewidth=2, zorder=1)
        for model in models:
            axes.plot(
                frame[model], rows, "o", color=COLOURS.get(model, "#666666"), label=LABELS.get(model, model)
            )
        axes.set_yticks(rows, [str(name) for name in order], fontsize=8.5)
        axes.set(xlabel="word error rate, %", title=title)
        axes.set_xlim(left=0)
        axes.legend(fontsize=9, loc="lower right")
    return figure


def canvas(width: float, height: float):
    """An empty figure (inches) and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
