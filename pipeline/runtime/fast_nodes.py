"""Bias and lexicon as the compiled beam search walks them: the arithmetic of `BiasTrie` and `Lexicon`."""

from typing import NamedTuple

import numpy as np

from pipeline.decoding.token_lattice import BLANK_ID
from pipeline.runtime.fast_step import compiled


class Trie(NamedTuple):
    """The arrays of a `BiasTrie`, as the compiled search reads them."""

    keys_A: np.ndarray
    targets_A: np.ndarray
    root_targets: np.ndarray
    credit_G: np.ndarray
    pending_G: np.ndarray
    begins_V: np.ndarray


class Words(NamedTuple):
    """The arrays of a `Lexicon`, as the compiled search reads them."""

    first_arc_G: np.ndarray
    tokens_A: np.ndarray
    targets_A: np.ndarray
    class_G: np.ndarray
    emission_G: np.ndarray
    root_targets_V: np.ndarray
    begins_V: np.ndarray
    ahead_HG: np.ndarray
    ends_HK: np.ndarray
    newest_H: np.ndarray
    next_KK: np.ndarray


@compiled
def bonuses(nodes_S, num_tokens, trie):
    """What each token earns after each node (S, V), and whether the node that it leads to owes (S, V)."""
    stride = len(trie.root_targets)
    bonus_SV = np.zeros((len(nodes_S), num_tokens), np.float64)
    owes_SV = np.zeros((len(nodes_S), num_tokens), np.bool_)
    if len(trie.credit_G) == 1:
        return bonus_SV, owes_SV  # no phrases
    credit_V, root_owes_V = np.empty(num_tokens, np.float64), np.empty(num_tokens, np.bool_)
    for token in range(num_tokens):
        target = trie.root_targets[min(token, stride - 1)]
        credit_V[token], root_owes_V[token] = trie.credit_G[target], owes(target, trie)
    for s in range(len(nodes_S)):
        node, bonus_V = nodes_S[s], bonus_SV[s]
        bonus_V[:], owes_SV[s, :] = credit_V, root_owes_V
        arc = np.searchsorted(trie.keys_A, node * stride)
        while trie.keys_A[arc] < (node + 1) * stride:
            token, target = trie.keys_A[arc] - node * stride, trie.targets_A[arc]
            if token < num_tokens:
                bonus_V[token], owes_SV[s, token] = trie.credit_G[target], owes(target, trie)
            arc += 1
        lent, pending = trie.credit_G[node], trie.pending_G[node]
        bonus_V -= lent
        if pending != 0.0:
            for token in range(num_tokens):
                if trie.begins_V[min(token, len(trie.begins_V) - 1)]:
                    bonus_V[token] += pending
        bonus_V[BLANK_ID], owes_SV[s, BLANK_ID] = 0.0, owes(node, trie)
    return bonus_SV, owes_SV


@compiled
def owes(node, trie):
    """Whether `node` holds credit of a phrase that is not finished."""
    return trie.credit_G[node] > trie.pending_G[node]


@compiled
def final(node, trie):
    """What the end takes back after `node`."""
    return trie.pending_G[node] - trie.credit_G[node]


@compiled
def target_of(node, token, trie):
    """Where `token`, no blank, leads from `node`."""
    stride = len(trie.root_targets)
    token = min(token, stride - 1)
    key = node * stride + token
    arc = np.searchsorted(trie.keys_A, key)
    return trie.targets_A[arc] if trie.keys_A[arc] == key else trie.root_targets[token]


@compiled
def costs(words_S, num_tokens, words):
    """What each token earns after each node of the lexicon (S, V)."""
    num_places = len(words.class_G)
    unknown = num_places - 1
    cost_SV = np.empty((len(words_S), num_tokens), np.float64)
    for s in range(len(words_S)):
        history, place, cost_V = words_S[s] // num_places, words_S[s] % num_places, cost_SV[s]
        left, after = _word_ends(history, place, words)
        here, ahead_G, begun_G = (
            words.ahead_HG[history, place],
            words.ahead_HG[history],
            words.ahead_HG[after],
        )
        strays = 0.0 if place == unknown else np.float64(ahead_G[unknown]) - here
        for token in range(num_tokens):
            cost_V[token] = left + begun_G[words.root_targets_V[token]] if words.begins_V[token] else strays
        for arc in range(words.first_arc_G[place], words.first_arc_G[place + 1]):
            cost_V[words.tokens_A[arc]] = np.float64(ahead_G[words.targets_A[arc]]) - here
        cost_V[BLANK_ID] = 0.0
    return cost_SV


@compiled
def _word_ends(history, place, words):
    """(bonus still due when the word at `place` ends, the history then)."""
    if place == 0:
        return 0.0, history  # no word yet
    kind = words.class_G[place]
    due = np.float64(words.ends_HK[history, kind]) + words.emission_G[place] - words.ahead_HG[history, place]
    return due, words.next_KK[words.newest_H[history], kind]


@compiled
def word_final(word, words):
    """The last bonus of an utterance that ends at the lexicon's node `word`."""
    left, after = _word_ends(word // len(words.class_G), word % len(words.class_G), words)
    return left + words.ends_HK[after, 0]


@compiled
def word_target(word, token, words):
    """Where `token`, no blank, leads from the lexicon's node `word`."""
    num_places = len(words.class_G)
    history, place = word // num_places, word % num_places
    if words.begins_V[token]:
        return _word_ends(history, place, words)[1] * num_places + words.root_targets_V[token]
    first, last = words.first_arc_G[place], words.first_arc_G[place + 1]
    arc = first + np.searchsorted(words.tokens_A[first:last], token)
    known = arc < last and words.tokens_A[arc] == token
    return history * num_places + (words.targets_A[arc] if known else num_places - 1)
