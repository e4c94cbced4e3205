"""Bias and lexicon as the compiled beam search walks them: the arithmetic of `BiasTrie` and `Lexicon`.

Shapes: S states, V tokens, X candidates; the others as of `BiasTrie` and `Lexicon`.
"""

from typing import NamedTuple

import numpy as np

from pipeline.decoding.token_lattice import BLANK_ID
from pipeline.runtime.fast_step import compiled

ROUNDING = 1e-3  # nats, more than float32 loses in a sum of four


class Trie(NamedTuple):
    """The arrays of a `BiasTrie`, as the compiled search reads them."""

    first_arc_G: np.ndarray
    tokens_A: np.ndarray
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
    begun_HV: np.ndarray
    ends_HK: np.ndarray
    newest_H: np.ndarray
    next_KK: np.ndarray


@compiled
def owes(node, trie):
    """Whether `node` holds credit of a phrase that is not finished."""
    return trie.credit_G[node] > trie.pending_G[node]


@compiled
def final(node, trie):
    """What the end takes back after `node`."""
    return trie.pending_G[node] - trie.credit_G[node]


class Candidates(NamedTuple):
    """What may follow in a frame, the best first: source state, token, nodes that they lead to, whether that of the
    bias owes; what bias and lexicon pay, and the sum with all before.
    """

    places_X5: np.ndarray
    bonus_X: np.ndarray
    total_X: np.ndarray


@compiled
def candidates(totals_S, acoustic_SV, nodes_S, words_S, beam, trie, words):
    """`Candidates` whose sum lies within `beam` of the best that owes nothing, or above it; equal ones by state and
    token.

    What most tokens earn is never worked out, for the most that they may earn is too little: a word earns nothing more
    within it, so that `most_V` bounds the sums of all tokens that do not go on with a phrase.
    """
    num_states, num_tokens = acoustic_SV.shape
    lowest, stride = -np.inf, len(trie.root_targets)
    credit_V, most_V = np.empty(num_tokens, np.float32), np.empty(num_tokens, np.float32)
    for token in range(num_tokens):
        credit_V[token] = trie.credit_G[trie.root_targets[min(token, stride - 1)]]
    for s in range(num_states):
        if not owes(nodes_S[s], trie):
            lowest = max(lowest, totals_S[s] + acoustic_SV[s, BLANK_ID] - beam)
    places_X5, scores_X2, count = np.empty((256, 5), np.int64), np.empty((256, 2), np.float64), 0
    arc_V, state_of_arc_V = np.empty(num_tokens, np.int64), np.full(num_tokens, -1)
    num_places, best = len(words.class_G), -np.inf
    unknown = num_places - 1
    for s in range(num_states):
        node, word = nodes_S[s], words_S[s]
        lent, pending = trie.credit_G[node], trie.pending_G[node]
        history, place = word // num_places, word % num_places
        left, after = _word_ends(history, place, words)
        ahead_G, begun_V = words.ahead_HG[history], words.begun_HV[after]
        here, first_arc, last_arc = ahead_G[place], words.first_arc_G[place], words.first_arc_G[place + 1]
        strays = 0.0 if place == unknown else np.float64(ahead_G[unknown]) - here
        state_of_arc_V[BLANK_ID] = s
        for arc in range(trie.first_arc_G[node], trie.first_arc_G[node + 1]):
            token = trie.tokens_A[arc]
            if token < num_tokens:
                arc_V[token], state_of_arc_V[token] = trie.targets_A[arc], s
        least = np.float32(lowest - totals_S[s] + lent - pending - ROUNDING)
        most_new, most_old = np.float32(left), np.float32(max(strays, 0.0))
        for token in range(num_tokens):
            most = most_new + begun_V[token] if words.begins_V[token] else most_old
            most_V[token] = acoustic_SV[s, token] + credit_V[token] + most
        for token in range(num_tokens):
            in_phrase = state_of_arc_V[token] == s
            if most_V[token] < least and not in_phrase:
                continue  # most end here
            if token == BLANK_ID:
                target, word_target, bonus = node, word, 0.0
            else:
                target = arc_V[token] if in_phrase else trie.root_targets[min(token, stride - 1)]
                bonus = trie.credit_G[target] - lent
                if trie.begins_V[min(token, len(trie.begins_V) - 1)]:
                    bonus += pending
                if words.begins_V[token]:
                    word_target = after * num_places + words.root_targets_V[token]
                    bonus += left + begun_V[token]
                else:
                    arc = first_arc + np.searchsorted(words.tokens_A[first_arc:last_arc], token)
                    if arc < last_arc and words.tokens_A[arc] == token:
                        word_target = history * num_places + words.targets_A[arc]
                        bonus += np.float64(ahead_G[words.targets_A[arc]]) - here
                    else:
                        word_target = history * num_places + unknown
                        bonus += strays
            total = totals_S[s] + acoustic_SV[s, token] + bonus
            if total < lowest:
                continue
            if count == len(places_X5):
                places_X5 = np.concatenate((places_X5, np.empty_like(places_X5)))
                scores_X2 = np.concatenate((scores_X2, np.empty_like(scores_X2)))
            places_5 = places_X5[count]
            places_5[0], places_5[1], places_5[2], places_5[3] = s, token, target, word_target
            places_5[4] = owes(target, trie)
            scores_X2[count, 0], scores_X2[count, 1] = bonus, total
            if total > best and not places_5[4]:
                best = total
            count += 1
    kept_X = np.flatnonzero(scores_X2[:count, 1] >= best - beam)
    order_X = kept_X[np.argsort(-scores_X2[kept_X, 1], kind="mergesort")]
    return Candidates(places_X5[order_X], scores_X2[order_X, 0], scores_X2[order_X, 1])


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
