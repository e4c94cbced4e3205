"""Which of several models to choose: their errors on some 50,000 words by the dev set's voices, voice by voice.

Run:    python bench/voices.py [MODEL …]        a packed file, or a stage's folder (data/student); the last run's packed
        file and the released one unless told otherwise
Cost:   a minute to make the recordings, once, and 10 to 40 s for each model on one core
Writes bench/voices.json: `wer/<model>` (percent, corpus), `mean/<model>` (percent, geometric mean over the voices) and
`errors/<model>/<voice>`. Choose by the mean: one voice of nine makes two thirds of the dev set's errors, so that their
sum says who knows that voice (`LOG.md`, 2026-11-23); and 11,000 words do not tell two or three per cent apart.
"""

import json
import os
import sys
from collections.abc import Sequence
from math import exp, log
from pathlib import Path

import pandas as pd

from pipeline.cli import RELEASED_MODEL, default_model
from pipeline.corpus.prepare import render
from pipeline.corpus.shards import load_cuts, open_workers, write_split
from pipeline.corpus.synthetic_plan import SyntheticConfig, plan
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.evaluation.hypotheses import hear_features
from pipeline.evaluation.wer import utterance_record, utterance_table
from pipeline.features.fbank import FbankConfig
from pipeline.models.transducer import build_transducer
from pipeline.params import load_params
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.word_section import read_lexicon
from pipeline.tracking import load_handoff

ROOT = Path(__file__).resolve().parents[1]
HOURS, SEED = 6.0, 8  # the dev set has seed 7: other recordings, other sentences
BATCH_SECONDS = 240


def main() -> None:
    models = [Path(name) for name in sys.argv[1:]] or [default_model(), RELEASED_MODEL]
    params = load_params("prepare")
    if params.data.source != "synthetic":
        print("params.yaml: data.source is not synthetic, whose voices this needs: skipped")
        return
    cuts = recordings(params.data.language, params.features)
    records, found = [utterance_record(cut) for cut in cuts], {}
    for path in dict.fromkeys(models):
        model, tokenizer, lexicon = recogniser(path)
        heard = hear_features(model, tokenizer, lexicon, cuts, BATCH_SECONDS, str(path))
        by_voice = utterance_table(records, heard, str(path)).groupby("speaker")[["errors", "words"]].sum()
        found[f"wer/{path}"] = 100 * float(by_voice["errors"].sum() / by_voice["words"].sum())
        found[f"mean/{path}"] = geometric_mean_wer(by_voice)
        found |= {f"errors/{path}/{voice}": int(n) for voice, n in by_voice["errors"].items()}
        print(f"{path}: mean over {len(by_voice)} voices {found[f'mean/{path}']:.3f} %, all words "
              f"{found[f'wer/{path}']:.2f} %")  # fmt: skip
    (ROOT / "bench/voices.json").write_text(json.dumps(found, indent=2) + "\n")


def recordings(language: str, features: FbankConfig) -> Sequence:
    """The cuts, made once and kept in the scratch folder."""
    folder = ROOT / f".scratch/voices/{language}-{SEED}-{features.num_mel_bins}"
    if not folder.is_dir():
        items = plan(SyntheticConfig(language=language), "dev", HOURS, SEED)
        with open_workers(os.cpu_count() or 1) as workers:
            write_split(folder, items, render, with_audio=False, fbank_config=features, workers=workers)
    return list(load_cuts(folder))


def recogniser(path: Path) -> tuple:
    """(model, tokenizer, lexicon) of a packed file, or of a stage's folder and its neighbours prepare and lexicon."""
    if path.is_file():
        packed = load_packed(path)
        return packed.model, packed.tokenizer, packed.lexicon
    hand = load_handoff(path)
    model = build_transducer(hand.card["model"])
    model.load_state_dict({name: hand.tensors[name] for name in model.state_dict()})
    tokenizer = Tokenizer.from_model(path.parent / "prepare/tokenizer.model")
    return model.eval(), tokenizer, read_lexicon(path.parent / "lexicon/words.bin", tokenizer)


def geometric_mean_wer(by_voice: pd.DataFrame) -> float:
    """exp(mean log WER), percent; a voice without an error counts as half an error."""
    rates = by_voice["errors"].clip(lower=0.5) / by_voice["words"]
    return 100 * exp(sum(log(rate) for rate in rates) / len(rates))


if __name__ == "__main__":
    main()
