"""Words that keep the same company, put into classes: what a small recogniser can afford to know of grammar.

The exchange algorithm (Kneser & Ney 1993; Martin, Liermann & Ney 1998, "Algorithms for bigram and trigram word
clustering"): one word after the other moves to the class that makes the class bigram likeliest, until none gains,

    F = sum_bc N(b, c) log N(b, c) - sum_b N(b, .) log N(b, .) - sum_c N(., c) log N(., c)

Shapes: W words, K classes.
"""

from collections.abc import Mapping

import numpy as np

Array = np.ndarray
MAX_SWEEPS = 12
MIN_GAIN = 1e-9  # rounding must not move a word to and fro


def word_classes(
    pairs: Mapping[tuple[int, int], int], num_words: int, num_classes: int, num_own: int
) -> Array:
    """Class of each word (W,), from how often one follows another (word ids, before and after).

    The first `num_own` words keep classes of their own, under their own numbers. The same input gives the same classes:
    the most frequent words begin in different ones.
    """
    followers, leaders = _neighbours(pairs, num_words)
    left_W, right_W = (np.array([counts.sum() for _, counts in each]) for each in (followers, leaders))
    order = [int(w) for w in np.argsort(-right_W, kind="stable") if w >= num_own]
    class_W = np.arange(num_words)
    class_W[order] = num_own + np.arange(len(order)) % max(1, num_classes - num_own)
    count_KK = np.zeros((num_classes, num_classes))
    for (before, after), count in pairs.items():
        count_KK[class_W[before], class_W[after]] += count
    for _ in range(MAX_SWEEPS if num_classes > num_own else 0):
        if not sum(_exchange(w, class_W, count_KK, followers[w], leaders[w], num_own) for w in order):
            break
    return class_W


def _neighbours(pairs: Mapping[tuple[int, int], int], num_words: int) -> tuple[list, list]:
    """For each word: (which words follow, how often), (which ones lead, how often)."""
    followers: list[dict[int, int]] = [{} for _ in range(num_words)]
    leaders: list[dict[int, int]] = [{} for _ in range(num_words)]
    for (before, after), count in pairs.items():
        followers[before][after] = count
        leaders[after][before] = count
    both = ([_arrays(each) for each in side] for side in (followers, leaders))
    return tuple(both)


def _arrays(counts: Mapping[int, int]) -> tuple[Array, Array]:
    return np.array(list(counts), int), np.array(list(counts.values()), float)


def _exchange(
    word: int, class_W: Array, count_KK: Array, followers: tuple, leaders: tuple, num_own: int
) -> bool:
    """Move `word` to its best class, changing `class_W` and `count_KK`; whether it moved."""
    before, num_classes = class_W[word], len(count_KK)
    (after_X, after_count_X), (lead_X, lead_count_X) = followers, leaders
    twice = after_count_X[after_X == word].sum()  # the word behind itself
    out_K = np.bincount(class_W[after_X], np.where(after_X == word, 0, after_count_X), num_classes)
    in_K = np.bincount(class_W[lead_X], np.where(lead_X == word, 0, lead_count_X), num_classes)
    _add(count_KK, before, -out_K, -in_K, -twice)
    own_K = np.diag(count_KK)
    row_K, column_K = count_KK.sum(1) + in_K, count_KK.sum(0) + out_K  # its neighbours stay where they are
    gain_K = _gained(count_KK, out_K) + _gained(count_KK.T, in_K)
    gain_K += _n_log_n(own_K + out_K + in_K + twice) + _n_log_n(own_K)
    gain_K -= _n_log_n(own_K + out_K) + _n_log_n(own_K + in_K)  # were counted in both sums
    gain_K -= _n_log_n(row_K + out_K.sum() + twice) - _n_log_n(row_K)
    gain_K -= _n_log_n(column_K + in_K.sum() + twice) - _n_log_n(column_K)
    gain_K[:num_own] = -np.inf
    best = int(gain_K.argmax())
    after = best if gain_K[best] > gain_K[before] + MIN_GAIN else before
    class_W[word] = after
    _add(count_KK, after, out_K, in_K, twice)
    return after != before


def _gained(count_KK: Array, more_K: Array) -> Array:
    """What sum_c N(b, c) log N(b, c) gains for each b by `more_K` in row b; only where something is added."""
    some_X = np.flatnonzero(more_K)
    count_KX = count_KK[:, some_X]
    return (_n_log_n(count_KX + more_K[some_X]) - _n_log_n(count_KX)).sum(1)


def _add(count_KK: Array, place: int, out_K: Array, in_K: Array, twice: float) -> None:
    count_KK[place] += out_K
    count_KK[:, place] += in_K
    count_KK[place, place] += twice


def _n_log_n(count: Array) -> Array:
    return count * np.log(np.maximum(count, 1))
