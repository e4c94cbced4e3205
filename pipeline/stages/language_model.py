"""Train what the cloud reranks lattices with: a neural language model, and an intent classifier beside it.

Run:    dvc repro language_model              Toy: make smoke
Reads:  data/prepare (text only)              Writes: data/language_model
Cost:   see seconds/language_model in its metrics.json; two to three minutes on 2 cores
"""

from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl

from pipeline.corpus.sentences import drawn_sentences
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.corpus.transcripts import transcripts
from pipeline.evaluation.language import language_metrics
from pipeline.language.intents import train_intents
from pipeline.language.neural import LanguageModel
from pipeline.language.storage import Language, card_of, tensors_of
from pipeline.params import load_params
from pipeline.tracking import run_stage, start_run
from pipeline.training.language_modelling import train_language_model

PREPARED = Path("data/prepare")


def main() -> None:
    params = load_params("language_model")
    with start_run("language_model", params, parents=["prepare"]) as run:
        tokenizer = Tokenizer.from_model(PREPARED / "tokenizer.model")
        said, dev = transcripts(PREPARED / "train"), transcripts(PREPARED / "dev")
        train = list(said)
        if params.data.source == "synthetic":
            hours = params.data.hours["train"] + params.drawn_hours
            train += drawn_sentences(params.data.language, hours, params.seed, skip=len(said))
        pl.seed_everything(params.seed, verbose=False)
        model = LanguageModel(replace(params.model, vocab_size=tokenizer.vocab_size))
        encoded = [[tokenizer.encode(each.text) for each in sentences] for sentences in (train, dev)]
        curves = train_language_model(run, model, *encoded, params.trainer, params.seed)
        intents = train_intents((each.text, each.intent) for each in train if each.intent)
        language = Language(model.eval(), intents, tokenizer.hash)
        counts = {"sentences/said": len(said), "sentences/drawn": len(train) - len(said)}
        run.hand_off(
            "data/language_model",
            tensors=tensors_of(language),
            card=card_of(language),
            metrics={**language_metrics(language, tokenizer, dev), **counts},
            files={"curves.csv": curves.csv()},
        )


if __name__ == "__main__":
    run_stage(main)
