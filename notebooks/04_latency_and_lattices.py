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
# # Latency and lattices
#
# **Question: how soon does the device know that the speaker has finished, what do its lattices cost on the wire, and
# what does a second pass make of them?**
#
# It reads `data/stream/metrics.json`, which `make device` (or `dvc repro stream`) writes after the main job, and hears
# one test utterance itself.

# %%
# %matplotlib inline
import json
from pathlib import Path

import pandas as pd
from IPython.display import SVG, Markdown, display

from pipeline.corpus.shards import load_cuts
from pipeline.decoding.lattice_export import to_svg
from pipeline.evaluation import plots
from pipeline.evaluation.browse import enter_project
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.endpoint_score import find_endpointer
from pipeline.runtime.engine import Engine

run = enter_project()
metrics = pd.Series(json.loads(Path("data/stream/metrics.json").read_text()))


def part(prefix):
    found = metrics[metrics.index.str.startswith(prefix + "/")]
    return found.set_axis(found.index.str.removeprefix(prefix + "/"))


display(Markdown(f"{metrics['utterances/stream']:.0f} test utterances"))

# %% [markdown]
# ## When does a turn end?
#
# Milliseconds from the last word's end to the final end: the median, the slowest tenth, the slowest hundredth. Then the
# share of turns cut before their last word, and what speculation brings: the gap from the speculative to the final end,
# the share of speculations taken back, and the time saved for whoever works on the words.

# %%
part("endpoint").rename("value").to_frame().round(3)

# %% [markdown]
# ## Expecting names: lists of 0 to 1,000 phrases
#
# B-WER counts the words of the utterance's own phrases, U-WER all others; `anti` is a list without the own phrases. What
# a phrase is worth was chosen on the dev set: a score for each token, less a cost times the log of the list's size. Names
# count after the words that come before their kind in the training transcripts; `cost` is the engine's CPU time with a
# list, times that without.

# %%
part("bias").reindex(["score", "unknown_score", "size_cost"]).rename("nats").to_frame()

# %%
bias = part("bias").rename("value").reset_index()
bias[["list", "measure"]] = bias["index"].str.split("/", n=1, expand=True)
table = bias.pivot(index="list", columns="measure", values="value")
table = table.loc[[name for name in ("0", "10", "100", "1000", "anti") if name in table.index]]
table[["phrases", "wer", "u_wer", "b_wer", "false_accepts_per_1000", "swap_ms", "cost"]].round(2)

# %%
figure, axes = plots.canvas(6.4, 3.4)
for measure, label in (("b_wer", "expected words (B-WER)"), ("u_wer", "all others (U-WER)"), ("wer", "all words")):
    axes.plot(table.index, table[measure], marker="o", label=label)
axes.set(xlabel="phrases in the list", ylabel="word error rate, %", title="What a list of phrases does")
axes.set_ylim(bottom=0)
axes.legend(frameon=False)
figure

# %% [markdown]
# ## What goes over the wire, and what comes back
#
# Bytes of the lattices against 16-bit PCM and Opus of the same audio; WER of the lattices' best paths, after the second
# pass, and of the best path that they hold (oracle).

# %%
part("lattice").rename("value").to_frame().round(2)

# %% [markdown]
# ## One utterance, event by event
#
# The engine hears the audio in chunks of 80 ms.

# %%
packed = load_packed("data/pack/model.sotto")
engine = Engine(packed, endpointer=find_endpointer("data/pack/model.sotto"))
cut = max(load_cuts("data/prepare/test", with_audio=True), key=lambda cut: len(cut.supervisions[0].text.split()))
samples_S = cut.load_audio()[0]
state, events = engine.stream(from_s=(cut.supervisions[0].custom or {}).get("wake_word_end_s") or 0.0), []
for begin in range(0, len(samples_S), 1_280):
    state, said = engine.accept(samples_S[begin : begin + 1_280], state)
    events += said
state, said = engine.finish(state)
events += said
display(Markdown(f"said: *{cut.supervisions[0].text}*"))
rows = [(event.time_ms, type(event).__name__, event.turn, event.revision, event.text) for event in events]
pd.DataFrame(rows, columns=["ms", "event", "turn", "revision", "text"])

# %%
lattices = [event.lattice for event in events if getattr(event, "lattice", None) is not None]
display(SVG(to_svg(lattices[-1])) if lattices else Markdown("nothing was heard"))

# %% [markdown]
# ## Speed
#
# Seconds of one core for a second of audio in chunks of 80 ms: the engine with lattices and end-pointer, our greedy
# recogniser, and sherpa-onnx (greedy) on the same model and audio.

# %%
speed = part("rtf").rename("real-time factor").to_frame()
bench = Path("bench/engines.json")
if bench.is_file():
    peers = pd.Series(json.loads(bench.read_text()))
    speed = pd.concat([speed, peers[peers.index.str.startswith("rtf/")].rename("real-time factor").to_frame()])
speed
