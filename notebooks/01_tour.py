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
# # A tour of a run
#
# **Question: what did `make repro` do, and what did each step cost?**
#
# This notebook reads what the last run left in `data/` and trains nothing. Run `make repro` first (or `dvc repro --pull`
# where someone has pushed a run).

# %%
# %matplotlib inline
import pandas as pd
from IPython.display import Audio, Markdown, display

from pipeline.evaluation import plots, summary
from pipeline.evaluation.browse import enter_project

run = enter_project()
metrics = run.metrics
display(Markdown(summary.headline(metrics)))

# %% [markdown]
# ## The steps
#
# Each row is a stage of `dvc.yaml`. Brackets are 95 % intervals from resampling the *speakers* of the test set; the
# differences are paired: both models on the same resample, so their interval is narrower than the two WERs suggest.

# %%
display(Markdown(summary.steps_table(metrics)))

# %%
plots.wer_against_bytes(summary.plot_rows(metrics, run.models))

# %% [markdown]
# ## What it was trained on
#
# Hours, utterances and words of each split, as `prepare` counted them, and one test utterance to listen to.

# %%
corpus = pd.read_json(run.project / "data/prepare/metrics.json", typ="series")
counts = {tuple(key.split("/")): value for key, value in corpus.items() if key.count("/") == 1}
pd.Series(counts).unstack().round(2)

# %%
example = run.utterances.query("model == @run.models[-1] and errors == 0 and words >= 3")
example = (example if len(example) else run.utterances.query("model == @run.models[-1]")).iloc[0]
display(Markdown(f"`{example.id}`, speaker {example.speaker}, SNR {example.snr_db:.0f} dB: *{example.reference}*"))
display(Audio(run.audio(example.id), rate=16_000))

# %%
figure, axes = plots.canvas(8, 2.6)
axes.imshow(run.features(example.id).T, origin="lower", aspect="auto", cmap="magma")
axes.set(xlabel="10 ms frame", ylabel="mel bin", title="what the encoder sees")
axes.grid(False)
figure

# %% [markdown]
# ## How the training went

# %%
plots.training_curves(run.curves())

# %% [markdown]
# ## The packed file at work
#
# The recogniser that a phone would carry, on the utterance above: the words, and when each subword was emitted.

# %%
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.recognise import transcribe

packed = load_packed(run.project / "data/pack/model.sotto")
from_s = max(0.0, example.wake_word_end_s or 0.0)
transcript = transcribe(packed, run.audio(example.id), from_s)
print(f"{transcript.text!r}, confidence {transcript.confidence:.2f}, {transcript.rtf:.3f} x real time")
pd.DataFrame([(token.piece, token.time_s) for token in transcript.tokens], columns=["piece", "time, s"]).T

# %% [markdown]
# ## Where its bytes go

# %%
from pipeline.evaluation.inspect import describe

description = describe(run.project / "data/pack/model.sotto")
pd.Series(description["sections"], name="bytes").to_frame().assign(share=lambda t: t["bytes"] / description["bytes"])

# %% [markdown]
# ## Who made it
#
# The commit, the MLflow run and the wall-clock seconds of every stage.

# %%
stages = ["prepare", "teacher", "label", "student", "sparsify", "qat", "pack", "evaluate"]
pd.DataFrame(
    {
        stage: {
            "seconds": metrics.get(f"seconds/{stage}"),
            "commit": run.card(stage)["commit"][:10],
            "MLflow run": run.card(stage)["run_id"],
        }
        for stage in stages
    }
).T
