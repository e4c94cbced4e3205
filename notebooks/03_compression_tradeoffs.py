# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compression trade-offs
#
# **Question: over all runs so far, what WER does a byte buy, and which parameters moved it?**
#
# Everything comes from MLflow through `search_runs`: one parent run per `dvc repro` or `dvc exp run`, one child per
# stage. Make more points with `dvc exp run -S qat.bits=1.8` or `make repro PRESET=joint`, then run this again.

# %%
# %matplotlib inline
import mlflow
import pandas as pd
from IPython.display import Markdown, display

from pipeline.evaluation import plots
from pipeline.evaluation.browse import enter_project
from pipeline.tracking.store import EXPERIMENT, tracking_uri

run = enter_project()
mlflow.set_tracking_uri(tracking_uri())
runs = mlflow.search_runs(experiment_names=[EXPERIMENT], filter_string="attributes.status = 'FINISHED'")
display(Markdown(f"{len(runs)} finished runs, {runs['tags.mlflow.parentRunId'].isna().sum()} of them whole repros"))

# %% [markdown]
# ## Every step of every repro
#
# The stages' runs carry `wer`, `bytes`, `bits_per_weight` and `zeros` of their model since `evaluate` measured them.

# %%
MODEL_OF = {"teacher": "teacher", "student": "student", "sparsify": "sparse", "qat": "qat", "pack": "packed"}
measured = [name for name in ("wer", "bytes", "bits_per_weight", "zeros") if f"metrics.{name}" in runs]
steps = runs[runs["tags.family"].isin(MODEL_OF) & runs["metrics.wer"].notna()].copy()
steps["model"] = steps["tags.family"].map(MODEL_OF)
steps = steps.rename(columns={f"metrics.{name}": name for name in measured})
steps = steps.rename(columns={"tags.mlflow.parentRunId": "repro", "tags.preset": "preset"})
steps[["repro", "preset", "model", *measured]].sort_values(["repro", "bytes"], ascending=[True, False]).round(3)

# %% [markdown]
# ## WER against bytes, all repros

# %%
figure, axes = plots.canvas(7.2, 4.2)
for (_, preset), group in steps.groupby(["repro", "preset"]):
    group = group.sort_values("bytes", ascending=False)
    axes.plot(group["bytes"], group["wer"], color="#bbbbbb", linewidth=1, zorder=1)
    axes.scatter(group["bytes"], group["wer"], c=[plots.COLOURS[model] for model in group["model"]], zorder=2)
    axes.annotate(preset, (group["bytes"].iloc[-1], group["wer"].iloc[-1]), xytext=(-6, 4), textcoords="offset points",
                  ha="right", fontsize=9)
axes.set_xscale("log")
axes.set(xlabel="bytes (logarithmic)", ylabel="word error rate, %", title="teacher → packed, one line per repro")
axes.set_ylim(bottom=0)
figure

# %% [markdown]
# ## The cheapest recogniser for a given WER
#
# A packed file is on the front if no other one is both smaller and better.

# %%
packed = steps[steps["model"] == "packed"].sort_values("bytes")
packed["on the front"] = packed["wer"] < packed["wer"].cummin().shift(fill_value=float("inf"))
packed[["repro", "preset", "wer", "bytes", "bits_per_weight", "zeros", "on the front"]].round(3)

# %% [markdown]
# ## Which parameters differ between the runs, and what they did
#
# Only parameters that took more than one value are shown.

# %%
parameters = runs.set_index("run_id").filter(like="params.")
stage_rows = runs.set_index("run_id")["tags.family"].isin(["sparsify", "qat"])
table = parameters[stage_rows].join(runs.set_index("run_id")[["tags.family", "tags.mlflow.parentRunId"]])
varying = [name for name in parameters if table.groupby("tags.family")[name].nunique().gt(1).any()]
wers = packed.set_index("repro")["wer"].rename("packed WER")
table[["tags.family", "tags.mlflow.parentRunId", *varying]].join(wers, on="tags.mlflow.parentRunId")

# %% [markdown]
# ## Where the time goes

# %%
seconds = runs[runs["tags.mlflow.parentRunId"].notna()].filter(like="metrics.seconds/").max().dropna()
seconds.index = seconds.index.str.removeprefix("metrics.seconds/")
seconds.rename("seconds").to_frame().assign(share=lambda t: (t["seconds"] / t["seconds"].sum()).round(3))
