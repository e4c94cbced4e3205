"""The device: train the end-pointer, choose its thresholds, measure engine and second pass on the test set.

Run:    dvc repro stream                          Cost: three to seven minutes on one core
Reads:  data/prepare/{train,dev,test}, data/pack/model.sotto, data/language_model
Writes: data/stream/{endpointer.safetensors,phrases.json,prefixes.json,weights.json,metrics.json}
"""

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.cloud.reranker import Reranker
from pipeline.corpus.shards import load_cuts
from pipeline.decoding.rescoring import Weights
from pipeline.evaluation.bias_metrics import bias_pass
from pipeline.evaluation.endpoint_metrics import endpoint_metrics
from pipeline.evaluation.lattice_metrics import second_pass, sent_utterances
from pipeline.evaluation.speed import real_time_factors
from pipeline.evaluation.streams import left_open, spread
from pipeline.language.storage import load_language
from pipeline.params import load_params
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.endpoint_score import NAME, digest, write_endpointer
from pipeline.runtime.engine import Engine
from pipeline.tracking import load_handoff, run_stage, start_run
from pipeline.training.endpointer import endpointer_of

MODEL = "data/pack/model.sotto"


def main() -> None:
    params = load_params("stream")
    with start_run("stream", params, parents=["prepare", "pack", "language_model"]) as run:
        packed, hand = load_packed(MODEL), load_handoff("data/language_model")
        reranker = Reranker(load_language(hand.card, hand.tensors), packed, Weights())
        train = list(load_cuts("data/prepare/train"))
        dev = spread(list(load_cuts("data/prepare/dev", with_audio=True)), params.dev_utterances)
        test = spread(list(load_cuts("data/prepare/test", with_audio=True)), params.test_utterances)
        heard, draws = spread(train, params.train_utterances), (params.seed, params.bootstrap_replicates)
        wanted = (params.silence_s, params.max_early_cut, params.gap_ms, params.max_revision)
        model, endpointer = endpointer_of(packed, heard, dev, *wanted, params.seed, params.epochs)
        write_endpointer(run.scratch / NAME, model, endpointer.config, digest(MODEL))
        engine = Engine(packed, endpointer=endpointer)
        pairs = tuple(([cut.load_audio()[0] for cut in cuts], cuts) for cuts in (dev, test))
        recordings, open_ended = pairs[1][0], left_open(*pairs[1], params.silence_s)
        metrics = endpoint_metrics(engine, open_ended, test, params.downstream_ms)
        sent = [sent_utterances(engine, *pair, reranker.words, reranker.candidates) for pair in pairs]
        weights, found = second_pass(*sent, recordings, reranker.candidates, *draws)
        grid = (params.phrase_scores, params.phrase_unknown_scores, params.phrase_size_costs)
        lists, biased = bias_pass(engine, *pairs, train, grid, *draws)
        metrics |= found | biased | {"utterances/stream": len(test)}
        metrics |= real_time_factors(Path(MODEL), run.scratch / NAME, open_ended[: params.timed_utterances])
        chosen = {"weights.json": asdict(weights), **lists}
        files = {NAME: run.scratch / NAME, **{name: json.dumps(each) + "\n" for name, each in chosen.items()}}
        run.hand_off("data/stream", metrics=metrics, files=files)


if __name__ == "__main__":
    run_stage(main)
