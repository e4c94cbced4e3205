"""What a lexicon and its grammar are worth, by their definitions, one word after the other."""

import math
import random
from collections import Counter

from pipeline.decoding.lexicon import Lexicon, LexiconWeights
from pipeline.language.class_ngram import BOUNDARY, DISCOUNT, UNKNOWN, UNSEEN, ClassNgram


def split_words(tokens, begins_V):
    """Token ids of each word; blanks are none."""
    words = []
    for token in tokens:
        if token and (begins_V[token] or not words):
            words.append([])
        if token:
            words[-1].append(token)
    return words


def bonus(ngram, weights, spellings, begins_V, tokens):
    """sum over words of scale log P(word | history) + word_bonus, less what unknown ones cost, and the end."""
    total, classes = 0.0, (BOUNDARY,)
    for word in split_words(tokens, begins_V):
        known = spellings.index(word) if word in spellings else None
        now = UNKNOWN if known is None else int(ngram.class_W[known])
        total += weights.scale * math.log(probability(ngram, classes, now)) + weights.word_bonus
        if known is None:
            total -= weights.oov_penalty
        else:
            total += weights.scale * math.log(emission(ngram, known))
        classes = (classes[-1], now)
    return total + weights.scale * math.log(probability(ngram, classes, BOUNDARY))


def probability(ngram, classes, now):
    """P(class | the classes before), by absolute discounting from the counts of the longest history that is kept."""
    rows = histories(ngram)
    unigram = Counter(dict.fromkeys(range(ngram.num_classes), UNSEEN))
    for (*older, _), counts in rows.items():
        if not older:
            unigram.update(counts)
    history = classes if classes in rows else classes[-1:]
    levels_of_detail = [rows[history[n:]] for n in range(len(history))][::-1]
    found = unigram[now] / sum(unigram.values())
    for counts in levels_of_detail:
        if counts:
            kept = max(counts.get(now, 0) - DISCOUNT, 0) + DISCOUNT * len(counts) * found
            found = kept / sum(counts.values())
    return found


def histories(ngram):
    """History -> {class: count}."""
    names = [(c,) for c in range(ngram.num_classes)] + [tuple(pair) for pair in ngram.pairs_P2.tolist()]
    rows = {}
    for n, name in enumerate(names):
        arcs = range(ngram.first_H[n], ngram.first_H[n + 1])
        rows[name] = {int(ngram.successor_S[s]): 2 ** (ngram.level_S[s] / 2) for s in arcs}
    return rows


def emission(ngram, word):
    counts = [2 ** (level / 2) for level in ngram.level_W]
    alike = [n for n, c in enumerate(ngram.class_W) if c == ngram.class_W[word]]
    return counts[word] / sum(counts[n] for n in alike)


def class_likelihood(pairs, class_W):
    """F of the exchange algorithm."""
    together, before, after = Counter(), Counter(), Counter()
    for (u, v), count in pairs.items():
        together[class_W[u], class_W[v]] += count
        before[class_W[u]] += count
        after[class_W[v]] += count

    def total(counts):
        return sum(n * math.log(n) for n in counts.values())

    return total(together) - total(before) - total(after)


def drawn_ngram(seed, num_words, num_classes=3, min_history=2, num_sentences=30):
    """Fitted to sentences drawn at random; some of their words are not in the list."""
    drawn = random.Random(seed)
    names = [f"w{n:03}" for n in range(num_words)]
    said = names[: max(1, num_words - 1)] + ["never listed"] if names else ["never listed"]
    sentences = [drawn.choices(said, k=drawn.randint(1, 5)) for _ in range(num_sentences)]
    return ClassNgram.fit(sentences, names, num_classes, min_history)


def drawn_lexicon(seed, spellings, begins_V, weights=LexiconWeights(0.5, 0.3, 1.5), **drawn):
    return Lexicon.build(spellings, begins_V, drawn_ngram(seed, len(spellings), **drawn), weights)


def plain_lexicon(spellings, begins_V, penalty):
    """No grammar: unknown words alone cost something."""
    ngram = drawn_ngram(0, len(spellings), num_classes=1)
    return Lexicon.build(spellings, begins_V, ngram, LexiconWeights(0.0, 0.0, penalty))
