"""The cloud's language model and intents, against loops; and what they may be trained on."""

import gzip
import json
import math
import zlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pipeline.corpus.grammar import is_unseen
from pipeline.corpus.sentences import drawn_sentences
from pipeline.corpus.synthetic_plan import SyntheticConfig, plan
from pipeline.corpus.tokenizer import Tokenizer, train_tokenizer
from pipeline.corpus.transcripts import LabelledSentence, known_words, transcripts
from pipeline.errors import UserError
from pipeline.evaluation.language import language_metrics
from pipeline.language import neural
from pipeline.language.config import LanguageModelConfig, LanguageTrainerConfig
from pipeline.language.intents import SMOOTHING, accuracy, terms_of, train_intents
from pipeline.language.neural import LanguageModel, log_probs
from pipeline.language.storage import Language, card_of, load_language, tensors_of
from pipeline.training.language_modelling import SentenceBatches, train_language_model
from tests.reference_rescoring import sentence_log_prob

SENTENCES = [[3, 4, 5], [], [6], [3, 4, 5, 6, 7, 1, 2], [9, 9, 9, 9]]
EXAMPLES = [
    ("turn on the lamp", "on"),
    ("turn on the light", "on"),
    ("turn off the lamp", "off"),
    ("stop it", "stop"),
]
TRAINER = LanguageTrainerConfig(
    epochs=10,
    batch_sentences=4,
    peak_lr=0.04,
    warmup_share=0.1,
    weight_decay=0.0,
    gradient_clip=1.0,
    precision="fp32",
)


def tiny_model(vocab_size=10, seed=1):
    torch.manual_seed(seed)
    return LanguageModel(LanguageModelConfig(4, 6, 2, 0.1, vocab_size)).eval()


def test_batched_log_probs_against_the_loop(monkeypatch):
    model = tiny_model()
    expected = [sentence_log_prob(model, tokens) for tokens in SENTENCES]
    assert log_probs(model, SENTENCES) == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(neural, "LARGEST_BATCH", 6)
    assert log_probs(model, SENTENCES) == pytest.approx(expected, abs=1e-4)
    assert log_probs(model, []) == []


def test_probabilities_of_all_short_sentences_and_longer_ones_sum_to_one():
    model = tiny_model(vocab_size=4)
    pairs = [[a, b] for a in range(1, 4) for b in range(1, 4)]
    ended = sum(math.exp(score) for score in log_probs(model, [[], [1], [2], [3], *pairs]))
    assert 0 < ended < 1


def test_perplexity_is_that_of_a_loop_over_pieces():
    texts = ["turn on the lamp", "call anna", "turn the lamp off", "what time is it"]
    tokenizer = Tokenizer(train_tokenizer(texts * 5, 32))
    model, intents = tiny_model(tokenizer.vocab_size), train_intents(EXAMPLES)
    dev = [LabelledSentence("turn the lamp off", "off"), LabelledSentence("call anna", None)]
    found = language_metrics(Language(model, intents, tokenizer.hash), tokenizer, dev)
    encoded = [tokenizer.encode(each.text) for each in dev]
    nats = -sum(sentence_log_prob(model, tokens) for tokens in encoded)
    pieces = sum(len(tokens) for tokens in encoded) + 2
    assert found["perplexity/dev_pieces"] == pytest.approx(math.exp(nats / pieces), rel=1e-4)
    assert found["perplexity/dev"] == pytest.approx(math.exp(nats / (4 + 2 + 2)), rel=1e-4)
    assert found["accuracy/intent"] == 100.0
    assert found["params/language_model"] == sum(value.numel() for value in model.state_dict().values())


def test_drawn_sentences_go_on_from_the_corpus_and_keep_out_what_is_tested():
    config = SyntheticConfig("en")
    corpus = [each.text for each in plan(config, "train", 0.05, 7)]
    drawn = drawn_sentences("en", 0.5, 7, skip=len(corpus))
    assert [each.text for each in drawn_sentences("en", 0.5, 7)][: len(corpus)] == corpus
    assert len(drawn) > 300 and all(each.intent for each in drawn)
    held_out = {each.text for split in ("dev", "test") for each in plan(config, split, 0.2, 7)}
    assert not held_out & {each.text for each in drawn}
    assert all(zlib.crc32(each.text.encode()) % 16 in range(3, 16) for each in drawn)
    names = [name for each in plan(config, "train", 0.5, 7)[len(corpus) :] for name in each.names]
    assert names and not any(is_unseen(rank) for _, rank, _ in names)


def test_transcripts_come_from_the_tables_alone(tmp_path):
    lines = [{"supervisions": [{"text": "a b", "custom": {"intent": "x"}}]}, {"supervisions": [{"text": None}]},
             {"supervisions": [{"text": "c"}]}]  # fmt: skip
    with gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt") as table:
        table.write("\n".join(json.dumps(line) for line in lines))
    assert transcripts(tmp_path) == [LabelledSentence("a b", "x"), LabelledSentence("c", None)]
    assert known_words(tmp_path, 10) == ["a", "b", "c"] and known_words(tmp_path, 2) == ["a", "b"]
    with pytest.raises(UserError, match="dvc repro prepare"):
        transcripts(tmp_path / "absent")


def test_the_most_frequent_words_are_known(tmp_path):
    texts = ["set a timer", "set a lamp", "a timer"]
    with gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt") as table:
        table.write("\n".join(json.dumps({"supervisions": [{"text": text}]}) for text in texts))
    assert known_words(tmp_path, 1) == ["a"]
    assert known_words(tmp_path, 3) == ["a", "set", "timer"]
    assert known_words(tmp_path, 100) == ["a", "lamp", "set", "timer"]


def test_intents_are_naive_bayes_by_hand():
    classifier = train_intents(EXAMPLES)
    assert classifier.names == ("off", "on", "stop")
    kept = {"turn", "the", "lamp", "on", "_turn", "turn_on", "on_the", "the_lamp"}
    assert set(classifier.terms) == kept
    found = classifier.classify("turn on the radio")
    weights = {}
    for name in classifier.names:
        mine = [
            term for text, intent in EXAMPLES if intent == name for term in terms_of(text) if term in kept
        ]
        total = len(mine) + SMOOTHING * len(kept)
        weights[name] = sum(intent == name for _, intent in EXAMPLES) / len(EXAMPLES)
        for term in terms_of("turn on the radio"):
            weights[name] *= (mine.count(term) + SMOOTHING) / total if term in kept else 1.0
    assert found.name == max(weights, key=weights.get) == "on"
    assert found.probability == pytest.approx(weights["on"] / sum(weights.values()), rel=1e-4)
    assert classifier.classify("") is classifier.classify("unheard words") is None
    assert accuracy(classifier, [("turn on the lamp", "on"), ("unheard words", "on")]) == 50.0
    assert train_intents([]).classify("turn on the lamp") is None and math.isnan(accuracy(classifier, []))


def test_a_stored_language_is_the_same_language():
    for examples in (EXAMPLES, []):
        language = Language(tiny_model(), train_intents(examples), "hash")
        card = json.loads(json.dumps(card_of(language)))
        again = load_language(card, tensors_of(language))
        assert log_probs(again.model, SENTENCES) == log_probs(language.model, SENTENCES)
        assert again.intents.classify("turn on the lamp") == language.intents.classify("turn on the lamp")
    with pytest.raises(UserError, match="do not fit"):
        load_language({**card, "model": {**card["model"], "width": 7}}, tensors_of(language))
    for broken in ({}, {**card, "model": {}}, {**card, "intents": {"names": ["a"], "terms": []}}):
        with pytest.raises(UserError):
            load_language(broken, tensors_of(language))
    with pytest.raises(UserError, match="vocab_size"):
        LanguageModel(LanguageModelConfig(4, 6, 1, 0.0))


def test_an_epoch_has_every_sentence_once_in_an_order_of_its_own():
    batches = SentenceBatches([n % 7 for n in range(101)], 8, seed=3)
    first = list(batches)
    assert sorted(index for batch in first for index in batch) == list(range(101)) and len(first) == len(
        batches
    )
    batches.set_epoch(1)
    assert list(batches) != first
    batches.set_epoch(0)
    assert list(batches) == first
    spread = [
        max(batches.lengths[i] for i in batch) - min(batches.lengths[i] for i in batch) for batch in first
    ]
    assert sum(spread) / len(spread) < 1.5, "sentences of like length go together"


class Killed(Exception):
    pass


def test_training_learns_and_a_killed_one_ends_with_the_same_weights(tmp_path, monkeypatch):
    sentences = [[3, 4, 5], [6, 7], [3, 4, 6]] * 8

    def train(folder):
        folder.mkdir(exist_ok=True)
        model = tiny_model().train()
        curves = train_language_model(SimpleNamespace(scratch=folder, logger=False), model, sentences, sentences[:3],
                                      TRAINER, seed=5)  # fmt: skip
        return model.eval(), curves

    model, curves = train(tmp_path / "whole")
    assert len(curves.rows) == TRAINER.epochs
    assert curves.rows[-1]["dev_perplexity"] < 5 < math.exp(-log_probs(tiny_model(), [[3, 4, 5]])[0] / 4)
    nats = -sum(log_probs(model, sentences[:3]))
    assert curves.rows[-1]["dev_perplexity"] == pytest.approx(math.exp(nats / 11), rel=1e-3)

    draw = SentenceBatches.__iter__

    def dies(self):
        if self.epoch == 2:
            raise Killed
        return draw(self)

    monkeypatch.setattr(SentenceBatches, "__iter__", dies)
    with pytest.raises(Killed):
        train(tmp_path / "killed")
    monkeypatch.undo()
    resumed, _ = train(tmp_path / "killed")
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_in_bfloat16_clips_and_learns(tmp_path):
    """Lightning refuses to clip for a fused optimizer in bfloat16."""
    sentences, run = [[3, 4, 5], [6, 7], [3, 4, 6]] * 8, SimpleNamespace(scratch=tmp_path, logger=False)
    settings = replace(TRAINER, precision="bf16")
    curves = train_language_model(run, tiny_model().train(), sentences, sentences[:3], settings, seed=5)
    assert curves.rows[-1]["dev_perplexity"] < 5


def test_a_rate_that_is_too_high_is_named(tmp_path):
    settings = replace(TRAINER, peak_lr=1e38, gradient_clip=1e30)
    with pytest.raises(FloatingPointError, match="lower peak_lr"):
        train_language_model(
            SimpleNamespace(scratch=tmp_path, logger=False),
            tiny_model().train(),
            SENTENCES * 8,
            SENTENCES,
            settings,
            1,
        )
