"""The slow, obvious twin of the bias trie: every phrase is tried at every position of a whole sequence."""

from functools import cache


def with_prefixes(phrases, prefixes=()):
    """(tokens, worth) of each phrase, after each prefix if there are any; a prefix is worth nothing."""
    return tuple(
        ((*prefix, *tokens), score * len(tokens)) for prefix in prefixes or [()] for tokens, score in phrases
    )


@cache
def earned(sequence: tuple[int, ...], phrases: tuple[tuple[tuple[int, ...], float], ...]) -> float:
    """What `sequence` earns from (tokens, worth) pairs, after the definition in `pipeline/decoding/biasing.py`."""
    total = 0.0
    for end in range(1, len(sequence) + 1):
        gains = [0.0]
        for tokens, worth in phrases:
            if sequence[max(0, end - len(tokens)) : end] == tokens:
                gains.append(worth - earned(tokens[:-1], phrases))
        total += max(gains)
    return total
