"""The slow, obvious twin of the bias trie: every phrase is tried at every position of a whole sequence."""

from functools import cache


def with_prefixes(phrases, prefixes=()):
    """(tokens, worth) of each phrase, after each prefix if there are any; a prefix is worth nothing."""
    return tuple(
        ((*prefix, *tokens), score * len(tokens)) for prefix in prefixes or [()] for tokens, score in phrases
    )


@cache
def earned(
    sequence: tuple[int, ...],
    phrases: tuple[tuple[tuple[int, ...], float], ...],
    begins: frozenset[int] | None = None,
    following: int | None = None,
) -> float:
    """What `sequence` earns from (tokens, worth) pairs, after the definition in `pipeline/decoding/biasing.py`.

    `begins`: tokens that begin a word, None: all do; `following`: the token after the sequence, None at the end.
    """
    total = 0.0
    for end in range(1, len(sequence) + 1):
        after = sequence[end] if end < len(sequence) else following
        if begins is not None and after is not None and after not in begins:
            continue
        gains = [0.0]
        for tokens, worth in phrases:
            if sequence[max(0, end - len(tokens)) : end] == tokens:
                gains.append(worth - earned(tokens[:-1], phrases, begins, tokens[-1]))
        total += max(gains)
    return total
