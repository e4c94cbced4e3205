"""Measure every step on the test set: WER with intervals, bytes, bits, zeros, speed.

Run:    dvc repro evaluate                Toy: make smoke
Reads:  data/prepare/test, every model, data/pack/model.sotto (the file itself, from the audio on)
Writes: data/evaluate/metrics.json, utterances.parquet (one row per model and utterance)
Cost:   a minute for 1.4 h of test speech on 2 cores (decoding runs at 700 x real time on one)
"""

import pandas as pd

from pipeline.corpus.shards import load_cuts
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.evaluation import measure
from pipeline.evaluation.hypotheses import hear_features, hear_recordings
from pipeline.evaluation.wer import NORMALISER, utterance_record, utterance_table
from pipeline.models.transducer import build_transducer
from pipeline.params import load_params
from pipeline.runtime.bundle import load_packed
from pipeline.tracking import annotate_models, load_handoff, run_stage, start_run

MODEL_OF = {"student": "student", "sparsify": "sparse", "qat": "qat"}


def main() -> None:
    params = load_params("evaluate")
    stages = packed_line()
    with start_run("evaluate", params, parents=[*stages, "pack"]) as run:
        cuts = list(load_cuts("data/prepare/test", with_audio=True))
        tokenizer = Tokenizer.from_model("data/prepare/tokenizer.model")
        packed, heard, metrics = load_packed("data/pack/model.sotto"), {}, {}
        lexicon, batch_s = packed.lexicon, params.batch_seconds  # all steps are searched with one lexicon
        for stage in stages:
            hand, model = load_handoff(f"data/{stage}"), MODEL_OF.get(stage, stage)
            transducer = build_transducer(hand.card["model"])
            transducer.load_state_dict({name: hand.tensors[name] for name in transducer.state_dict()})
            heard[model] = hear_features(transducer.eval(), tokenizer, lexicon, cuts, batch_s, model)
            metrics |= measure.size_metrics(model, measure.recogniser_tensors(transducer, hand.tensors))
        heard["packed"] = hear_recordings(packed, cuts, batch_s, "packed")
        metrics |= measure.file_metrics("packed", "data/pack/model.sotto", metrics["bytes/teacher"])
        metrics["rtf/packed"] = measure.real_time_factor(packed, (cut.load_audio()[0] for cut in cuts))
        records = [utterance_record(cut) for cut in cuts]
        tables = {m: utterance_table(records, t, m, params.noisy_snr_db) for m, t in heard.items()}
        metrics |= measure.word_error_metrics(tables, params.seed, params.bootstrap_replicates)
        table = pd.concat(tables.values(), ignore_index=True)
        run.log_table(table[table["model"] == "packed"], "utterances_packed.json")
        files = {"utterances.parquet": table.to_parquet()}
        run.hand_off("data/evaluate", card={"normaliser": NORMALISER}, metrics=metrics, files=files)
        annotate_models(metrics)


def packed_line() -> list[str]:
    """The stages that led to the packed file, the teacher first: each names the one that it went on from."""
    line = [load_handoff("data/pack").card["params"]["after"]]
    while line[0] != "student":
        line.insert(0, load_handoff(f"data/{line[0]}").card["params"]["after"])
    return ["teacher", *line]


if __name__ == "__main__":
    run_stage(main)
