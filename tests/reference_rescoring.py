"""Slow, obvious twins of the second pass: one piece after the other, one path after the other."""

import math

import torch

from tests import reference_lattice


@torch.no_grad()
def sentence_log_prob(model, tokens):
    """log P of the pieces and of the end, each from the model's logits after the prefix alone."""
    total = 0.0
    for place, token in enumerate([*tokens, 0]):
        logits_1UV = model(torch.tensor([[0, *tokens[:place]]]))
        total += float(logits_1UV[0, -1].double().log_softmax(-1)[token])
    return total


@torch.no_grad()
def internal_log_prob(model, tokens):
    """log P of the pieces under predictor and joiner, without a frame and without blank."""
    total = 0.0
    for place, token in enumerate(tokens):
        context_12 = torch.tensor([([0, 0, *tokens[:place]])[-2:]])
        logits_V = model.join(torch.zeros(1, model.encoder.output_width), model.predict_context(context_12))[
            0
        ]
        scores = [math.exp(float(logit)) for logit in logits_V]
        total += math.log(scores[token] / sum(scores[1:]))
    return total


def best_of_all_paths(lattice, weights, score_lm, score_ilm, score_grammar):
    """[(score, words)] of every word sequence of the lattice, the best first."""
    first_pass = {}
    for arcs in reference_lattice.all_paths(lattice):
        words = tuple(reference_lattice.path_words(arcs))
        first_pass[words] = max(first_pass.get(words, -math.inf), reference_lattice.path_score(arcs))
    scored = []
    for words, before in first_pass.items():
        added = weights.language_model * score_lm(words) - weights.internal * score_ilm(words)
        added -= weights.grammar * score_grammar(words)
        scored.append((before + added + weights.per_word * len(words), words))
    return sorted(scored, reverse=True)
