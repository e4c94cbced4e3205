"""Slow, obvious twins of search and lattices: every symbol sequence of a tiny model, every path of a small lattice."""

import itertools

import torch

from tests.reference_wer import edit_distance


def all_token_paths(model, encoded_TD, bias=None):
    """[(symbols, log_prob, bonus)] of every sequence of one symbol per frame, blank = 0."""
    vocab_size = model.config.vocab_size
    found = []
    for symbols in itertools.product(range(vocab_size), repeat=len(encoded_TD)):
        tokens, log_prob, bonus = [], 0.0, 0.0
        node = bias.start() if bias else None
        for encoded_D, symbol in zip(encoded_TD, symbols, strict=True):
            log_prob += _log_probs(model, encoded_D, tuple(([0, 0] + tokens)[-2:]))[symbol]
            if symbol:
                tokens.append(symbol)
                if bias:
                    node, more = bias.step(node, symbol)
                    bonus += more
        found.append((symbols, log_prob, bonus + (bias.final(node) if bias else 0.0)))
    return found


def beam_search(model, encoded_TD, config, bias=None):
    """After each frame: {(context, node): best score} of the states kept, and the number of arcs between them."""
    scores, frames = {((0, 0), bias.start() if bias else None): 0.0}, []
    for encoded_D in encoded_TD:
        steps = []
        for (context, node), score in scores.items():
            for token, log_prob in enumerate(_log_probs(model, encoded_D, context)):
                after, bonus = bias.step(node, token) if bias and token else (node, 0.0)
                to = ((context[1], token), after) if token else (context, node)
                steps.append((score + log_prob + bonus, to))
        unfinished = {to: bias.unfinished(to[1]) if bias else None for _, to in steps}
        owing = {to for to, place in unfinished.items() if place is not None}
        worst = max(score for score, to in steps if to not in owing) - config.beam
        steps = [step for step in steps if step[0] >= worst]
        best = {to: max(score for score, other in steps if other == to) for _, to in steps}
        best_first = sorted(best, key=best.get, reverse=True)
        kept = [to for to in best_first if to not in owing][: config.num_states]
        begun = []
        for to in best_first:
            alike = [other for other in begun if unfinished[other] == unfinished[to]]
            if to in owing and len(alike) < config.num_alike:
                begun.append(to)
        kept += begun[: config.num_owing]
        scores = {to: best[to] for to in kept}
        frames.append((scores, sum(to in scores for _, to in steps)))
    return frames


def _log_probs(model, encoded_D, context, cache={}):  # noqa: B006 - a memo is the purpose
    key = id(model), tuple(encoded_D.tolist()), context
    if key not in cache:
        logits_V = model.join(encoded_D, model.predict_context(torch.tensor(context)))
        cache[key] = logits_V.log_softmax(-1).tolist()
    return cache[key]


def all_arc_paths(tokens):
    """[(score, arcs)] of every path through a token lattice, from state 0 to any end."""
    paths = [(0.0, (), 0)]
    for arcs in tokens.frames:
        paths = [
            (score + arc.acoustic + arc.bonus, (*before, arc), arc.target)
            for score, before, state in paths
            for arc in arcs
            if arc.source == state
        ]
    return [(score + tokens.final_bonuses[state], arcs) for score, arcs, state in paths]


def spell(symbols, texts):
    """The words of a symbol sequence."""
    return tuple("".join(texts[symbol] for symbol in symbols).replace("\u2581", " ").split())


def best_by_words(token_paths, texts):
    """{words: largest log_prob + bonus of a sequence that spells them}."""
    best = {}
    for symbols, log_prob, bonus in token_paths:
        words = spell(symbols, texts)
        best[words] = max(best.get(words, -float("inf")), log_prob + bonus)
    return best


def all_paths(lattice):
    """Every path from the start to the end as a list of arcs."""

    def onward(node):
        if node == lattice.num_nodes - 1:
            yield []
        for arc in lattice.arcs:
            if arc.source == node:
                for rest in onward(arc.target):
                    yield [arc, *rest]

    return list(onward(0))


def path_score(arcs):
    return sum(arc.acoustic + arc.bonus for arc in arcs)


def path_words(arcs):
    return [arc.word for arc in arcs if arc.word]


def oracle_errors(lattice, reference):
    return min(edit_distance(list(reference), path_words(arcs)) for arcs in all_paths(lattice))
