"""How well a language model and an intent classifier know sentences that they were not trained on."""

import math
from collections.abc import Sequence

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.corpus.transcripts import LabelledSentence
from pipeline.language.intents import accuracy
from pipeline.language.neural import log_probs
from pipeline.language.storage import Language


def language_metrics(
    language: Language, tokenizer: Tokenizer, dev: Sequence[LabelledSentence]
) -> dict[str, float]:
    """`perplexity/dev` per word and `perplexity/dev_pieces`, sentence ends counted; `accuracy/intent` in percent
    where the corpus names intents; `params/language_model`.
    """
    encoded = [tokenizer.encode(sentence.text) for sentence in dev]
    total = -sum(log_probs(language.model, encoded))
    num_words = sum(len(sentence.text.split()) + 1 for sentence in dev)
    num_pieces = sum(len(tokens) + 1 for tokens in encoded)
    metrics = {
        "perplexity/dev": math.exp(total / max(1, num_words)),
        "perplexity/dev_pieces": math.exp(total / max(1, num_pieces)),
        "params/language_model": sum(value.numel() for value in language.model.parameters()),
    }
    labelled = [(sentence.text, sentence.intent) for sentence in dev if sentence.intent]
    return metrics | ({"accuracy/intent": accuracy(language.intents, labelled)} if labelled else {})
