"""The device: train the end-pointer, choose its thresholds, measure engine and second pass on the test set.

Run:    dvc repro stream                          Toy: make smoke
Reads:  data/prepare/{train,dev,test}, data/pack/model.sotto, data/language_model
Writes: data/stream/{endpointer.safetensors,phrases.json} (`sotto listen`), weights.json (`sotto serve`), metrics.json
Cost:   seven minutes on one core; of the test set, as many utterances as the parameters say, evenly spread
"""

import json
from dataclasses import asdict

from pipeline.cloud.reranker import Reranker
from pipeline.corpus.shards import load_cuts
from pipeline.decoding.rescoring import Weights
from pipeline.evaluation import bias_metrics, stream_metrics
from pipeline.evaluation.streams import left_open, spread
from pipeline.language.storage import load_language
from pipeline.params import load_params
from pipeline.runtime import phrases
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.endpoint_score import NAME, digest, write_endpointer
from pipeline.runtime.engine import Engine
from pipeline.tracking import load_handoff, run_stage, start_run
from pipeline.training.endpointer import endpoint_examples, train_endpointer, with_chosen_thresholds

MODEL = "data/pack/model.sotto"


def main() -> None:
    params = load_params("stream")
    with start_run("stream", params, parents=["prepare", "pack", "language_model"]) as run:
        packed, hand = load_packed(MODEL), load_handoff("data/language_model")
        reranker = Reranker(load_language(hand.card, hand.tensors), packed, Weights())
        train = list(load_cuts("data/prepare/train"))
        dev = spread(list(load_cuts("data/prepare/dev", with_audio=True)), params.dev_utterances)
        test = spread(list(load_cuts("data/prepare/test", with_audio=True)), params.test_utterances)
        examples = endpoint_examples(packed, spread(train, params.train_utterances), params.silence_s)
        model = train_endpointer(examples, packed.model.encoder.output_width, params.seed, params.epochs)
        wanted = (params.silence_s, params.max_early_cut, params.gap_ms)
        endpointer = with_chosen_thresholds(packed, model, dev, *wanted)
        write_endpointer(run.scratch / NAME, model, endpointer.config, digest(MODEL))
        engine = Engine(packed, endpointer=endpointer)
        dev_audio, recordings = ([cut.load_audio()[0] for cut in cuts] for cuts in (dev, test))
        open_ended = left_open(recordings, test, params.silence_s)
        metrics = stream_metrics.endpoint_metrics(engine, open_ended, test, params.downstream_ms)
        draws = (params.seed, params.bootstrap_replicates)
        pairs = ((dev_audio, dev), (recordings, test))
        wire = (reranker.words, reranker.candidates)
        sent = [stream_metrics.sent_utterances(engine, *pair, *wire) for pair in pairs]
        weights, found = stream_metrics.second_pass(*sent, recordings, *draws)
        grid = (params.phrase_scores, params.phrase_size_costs)
        bonus, biased = bias_metrics.bias_pass(engine, *pairs, train, params.bias_utterances, grid, *draws)
        metrics |= found | biased
        metrics["rtf/engine"] = stream_metrics.engine_rtf(engine, open_ended[: params.timed_utterances])
        metrics["utterances/stream"] = len(test)
        chosen = {"weights.json": json.dumps(asdict(weights)), phrases.NAME: json.dumps(asdict(bonus))}
        files = {NAME: run.scratch / NAME, **{name: text + "\n" for name, text in chosen.items()}}
        run.hand_off("data/stream", metrics=metrics, files=files)


if __name__ == "__main__":
    run_stage(main)
