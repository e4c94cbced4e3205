"""Which of several models to choose: their errors on some 50,000 words by the dev set's voices, voice by voice.

Run:    python bench/voices.py [MODEL …]        a packed file, or a stage's folder (data/student); the last run's packed
        file and the released one unless told otherwise
Cost:   51 s for one model on 2 cores, most of them for the recordings; 10 to 40 s for each more
Writes bench/voices.json: `wer/<model>` (percent, corpus), `mean/<model>` (percent, geometric mean over the voices) and
`errors/<model>/<voice>`. Choose by the mean: one voice of nine makes two thirds of the dev set's errors, so that their
sum says who knows that voice (`LOG.md`, 2026-11-23); and 11,000 words do not tell two or three per cent apart.
"""

import json
import sys
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory

from pipeline.cli import RELEASED_MODEL, default_model
from pipeline.corpus.prepare import render
from pipeline.corpus.shards import load_cuts, open_workers, write_split
from pipeline.corpus.synthetic_plan import SyntheticConfig, plan
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.evaluation.hypotheses import hear_features
from pipeline.evaluation.wer import utterance_record, utterance_table, wer, wer_by
from pipeline.params import PrepareParams, load_params
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.word_section import read_lexicon
from pipeline.tracking import load_handoff
from pipeline.training.recipe import load_model

ROOT = Path(__file__).resolve().parents[1]
HOURS, SEED = 6.0, 8  # the dev set has seed 7: other recordings, other sentences
BATCH_SECONDS = 240


def main() -> None:
    models = [Path(name) for name in sys.argv[1:]] or [default_model(), RELEASED_MODEL]
    params = load_params("prepare")
    if params.data.source != "synthetic":
        print("params.yaml: data.source is not synthetic, whose voices this needs: skipped")
        return
    with TemporaryDirectory() as folder:
        found = compare(list(dict.fromkeys(models)), recordings(params, Path(folder) / "dev"))
    (ROOT / "bench/voices.json").write_text(json.dumps(found, indent=2) + "\n")


def recordings(params: PrepareParams, folder: Path) -> list:
    """The cuts, made in `folder`."""
    items = plan(SyntheticConfig(language=params.data.language), "dev", HOURS, SEED)
    with open_workers(params.prepare.num_workers) as workers:
        write_split(folder, items, render, with_audio=False, fbank_config=params.features, workers=workers)
    return list(load_cuts(folder))


def compare(models: list[Path], cuts: list) -> dict[str, float]:
    """What voices.json holds; prints a line for each model. A voice without an error counts as half an error."""
    records, found = [utterance_record(cut) for cut in cuts], {}
    for path in models:
        heard = hear_features(*recogniser(path), cuts, BATCH_SECONDS, str(path))
        table = utterance_table(records, heard, str(path))
        voices = wer_by(table, "speaker")
        mean = geometric_mean(100 * voices["errors"].clip(lower=0.5) / voices["words"])
        found |= {f"wer/{path}": wer(table), f"mean/{path}": mean}
        found |= {f"errors/{path}/{voice}": int(count) for voice, count in voices["errors"].items()}
        print(f"{path}: mean over {len(voices)} voices {mean:.3f} %, all words {wer(table):.2f} %")
    return found


def recogniser(path: Path) -> tuple:
    """(model, tokenizer, lexicon) of a packed file, or of a stage's folder and its neighbours prepare and lexicon."""
    if path.is_file():
        packed = load_packed(path)
        return packed.model, packed.tokenizer, packed.lexicon
    hand = load_handoff(path)
    tokenizer = Tokenizer.from_model(path.parent / "prepare/tokenizer.model")
    lexicon = read_lexicon(path.parent / "lexicon/words.bin", tokenizer)
    return load_model(hand.card["model"], hand.tensors).eval(), tokenizer, lexicon


if __name__ == "__main__":
    main()
