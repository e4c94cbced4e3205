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
# # Error analysis
#
# **Question: which words does the packed recogniser get wrong, for whom, and did compression add new kinds of errors or
# only more of the old ones?**
#
# Everything comes from `data/evaluate/utterances.parquet`: one row per model and utterance.

# %%
# %matplotlib inline
import pandas as pd
from IPython.display import HTML, Audio, Markdown, display

from pipeline.evaluation import plots
from pipeline.evaluation.browse import enter_project
from pipeline.evaluation.intervals import paired_difference, wer_interval
from pipeline.evaluation.wer import alignment_html, confusions, wer_by

run = enter_project()
utterances = run.utterances
first, last = run.models[0], run.models[-1]
teacher = utterances[utterances["model"] == first]
packed = utterances[utterances["model"] == last]
interval = wer_interval(packed, seed=0)
display(Markdown(f"**{last}**: WER {interval.value:.1f} % [{interval.low:.1f}, {interval.high:.1f}] on "
                 f"{packed.words.sum():,} words of {packed.speaker.nunique()} speakers"))

# %% [markdown]
# ## Substitutions, deletions, insertions
#
# Many deletions mean that the model is unsure and stays silent; many insertions that it hears words in noise.

# %%
by_model = utterances.groupby("model", sort=False)[["words", "S", "D", "I"]].sum()
by_model.assign(**{f"{kind} per 100 words": 100 * by_model[kind] / by_model.words for kind in "SDI"}).round(2)

# %% [markdown]
# ## By intent

# %%
def compared(column, table=utterances):
    """WER of the first and the last model, and the last one's errors, for each value of a column."""
    both = {model: wer_by(table[table["model"] == model], column)["wer"] for model in (first, last)}
    counts = wer_by(table[table["model"] == last], column)[["words", "S", "D", "I"]]
    return pd.DataFrame(both).join(counts).sort_values(last, ascending=False).round(1)


compared("intent") if packed["intent"].notna().any() else "this corpus has no intents"

# %% [markdown]
# ## By the rarity of the name
#
# Names follow a long tail, and a share of the test names never occurred in training: a subword model can still spell
# them. `name words wrong` looks at the name's own words only.

# %%
rarity = pd.cut(utterances["name_rank"], [-1, 9, 49, 199, 10**6], labels=["top 10", "top 50", "top 200", "rarer"])
kind = rarity.astype("string").where(~utterances["unseen_name"].fillna(False).astype(bool), "never trained on")
by_name = utterances.assign(name=kind.where(utterances["name_words"] > 0, "no name").fillna("rank unknown"))
wrong = by_name[by_name["model"] == last].groupby("name")[["name_words", "name_errors"]].sum()
compared("name", by_name).join((100 * wrong["name_errors"] / wrong["name_words"]).round(1).rename("name words wrong, %"))

# %% [markdown]
# ## By voice
#
# A spread between voices is why intervals are computed over speakers and not over utterances.

# %%
column = "voice" if packed["voice"].nunique() > 1 else "speaker"
plots.wer_by_group(utterances, column, [first, last], f"WER by {column}")

# %% [markdown]
# ## By noise, room and other talkers

# %%
plots.wer_by_snr(utterances) if packed["snr_db"].notna().any() else "this corpus has no SNRs"

# %%
conditions = utterances.assign(
    condition=utterances["interferer_sir_db"].notna().map({True: "another talker", False: "alone"})
    + ", " + (utterances["rt60_s"].fillna(0) > 0).map({True: "in a room", False: "dry"})
)
compared("condition", conditions)

# %% [markdown]
# ## The words that are confused

# %%
confusions(packed).head(20)

# %% [markdown]
# ## Did compression add errors of its own?
#
# Paired: utterances that the teacher had right and the packed file has wrong, and the other way round.

# %%
wrong = pd.DataFrame({model: utterances[utterances["model"] == model].set_index("id")["errors"] > 0
                      for model in (first, last)})
difference = paired_difference(packed, teacher, seed=0)["absolute"]
display(Markdown(f"{last} − {first}: {difference.value:+.2f} points [{difference.low:+.2f}, {difference.high:+.2f}]"))
pd.crosstab(wrong[first], wrong[last], rownames=[f"{first} wrong"], colnames=[f"{last} wrong"])

# %% [markdown]
# ## The worst utterances, to listen to
#
# Orange: substituted; red, struck through: deleted; blue: inserted.

# %%
worst = packed.sort_values(["errors", "wer", "id"], ascending=[False, False, True]).head(8)
for row in worst.itertuples():
    heard = teacher.set_index("id").loc[row.id, "hypothesis"]
    display(HTML(f"<b>{row.id}</b> {row.voice or row.speaker}, SNR {row.snr_db:.0f} dB, {row.errors} errors<br>"
                 f"{alignment_html(row.reference, row.hypothesis)}<br><i>{first}: {heard}</i>"))
    display(Audio(run.audio(row.id), rate=16_000))
