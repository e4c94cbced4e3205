"""The packed file's section of words, their classes and the grammar: a `ClassNgram` in some ten kilobytes.

In this order:

    numbers   weights of the search (scale, word_bonus, oov_penalty, float64), K, W, P, S of one class, S of two,
              bytes of text
    text      words in alphabetical order, each as how many letters it shares with the one before it (at most 9), rest
    integers  ANS-coded: class and level of each word; successors of each history: how many, gaps, levels; histories
              of two classes: how many for each newer one, gaps. Those of two classes point into the newer one's row.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.compression import entropy_coding, packed_format
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.lexicon import Lexicon, LexiconWeights, lexicon_of
from pipeline.errors import UserError
from pipeline.language.class_ngram import NUM_OWN, ClassNgram

FIXED = struct.Struct("<3d6I")
MAX_WORDS, MAX_CLASSES, MAX_ROWS, MAX_SUCCESSORS = 200_000, 1024, 100_000, 4_000_000
MAX_TABLE = 64_000_000  # probabilities of all classes after all histories
Array = np.ndarray


def pack_words(ngram: ClassNgram, weights: LexiconWeights) -> bytes:
    """The section's bytes."""
    ones = ngram.num_classes
    text = packed_format.compress_text("\n".join(_front_coded(ngram.words)).encode())
    split = int(ngram.first_H[ones])
    lengths_H, rows = np.diff(ngram.first_H), np.split(ngram.successor_S, ngram.first_H[1:-1])
    places = [
        np.searchsorted(rows[newer], row)
        for newer, row in zip(ngram.pairs_P2[:, 1], rows[ones:], strict=True)
    ]
    older = [ngram.pairs_P2[ngram.pairs_P2[:, 1] == newer, 0] for newer in range(ones)]
    arrays = [
        ngram.class_W,
        ngram.level_W,
        lengths_H[:ones],
        _gaps(rows[:ones]),
        ngram.level_S[:split],
        np.array([len(each) for each in older], int),
        _gaps(older),
        lengths_H[ones:],
        _gaps(places),
        ngram.level_S[split:],
    ]
    sizes = ones, len(ngram.words), len(ngram.pairs_P2), split, len(ngram.successor_S) - split, len(text)
    fixed = FIXED.pack(weights.scale, weights.word_bonus, weights.oov_penalty, *sizes)
    return fixed + text + entropy_coding.encode(arrays)


def read_lexicon(path: str | Path, tokenizer: Tokenizer) -> Lexicon:
    """The lexicon of a file with such a section alone. Raises UserError naming the file."""
    try:
        return section_lexicon(Path(path).read_bytes(), tokenizer)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: holds no words and classes ({error}); run `dvc repro lexicon`") from error


def section_lexicon(data: bytes, tokenizer: Tokenizer) -> Lexicon:
    """The lexicon of a section. Raises ValueError for what `pack_words` did not write, or for another tokenizer."""
    try:
        ngram, weights = unpack_words(data)
        return lexicon_of(ngram, tokenizer, weights)
    except UserError as error:
        raise ValueError(str(error)) from error


def unpack_words(data: bytes) -> tuple[ClassNgram, LexiconWeights]:
    """As packed. Raises ValueError (or UserError, for impossible weights) for what `pack_words` did not write."""
    if len(data) < FIXED.size:
        raise ValueError("it is cut off")
    *values, ones, num_words, num_pairs, split, num_others, text_bytes = FIXED.unpack_from(data)
    limits = (ones, MAX_CLASSES), (num_words, MAX_WORDS), (num_pairs, MAX_ROWS), (split, MAX_SUCCESSORS)
    if any(size > most for size, most in (*limits, (num_others, MAX_SUCCESSORS))) or ones < NUM_OWN:
        raise ValueError("a size is impossible")
    if (ones + num_pairs) * ones > MAX_TABLE:
        raise ValueError("its tables are too large")
    start = FIXED.size + text_bytes
    lines = packed_format.decompress_text(data[FIXED.size : start]).decode().split("\n") if num_words else []
    words = tuple(_read_front_coded(lines))
    lengths = num_words, num_words, ones, split, split, ones, num_pairs, num_pairs, num_others, num_others
    class_W, level_W, long_K, gaps, level_one, pairs_K, pair_gaps, long_P, place_gaps, level_two = (
        entropy_coding.decode(data[start:], lengths)
    )
    successors = _read_gaps(gaps, long_K, ones)
    older_P = _read_gaps(pair_gaps, pairs_K, ones)
    newer_P = np.repeat(np.arange(ones), pairs_K)
    first_K = np.cumsum([0, *long_K])
    places = _read_gaps(place_gaps, long_P, split)
    newer_X = np.repeat(newer_P, long_P)
    if (places >= long_K[newer_X]).any():
        raise ValueError("a history of two classes has a successor that its newer class lacks")
    if len(words) != num_words or list(words) != sorted(set(words)):
        raise ValueError("its words are not in order")
    if ((class_W < NUM_OWN) | (class_W >= ones)).any() or any(
        (each < 0).any() for each in (level_W, level_one, level_two)
    ):
        raise ValueError("a class or a count is impossible")
    ngram = ClassNgram(
        words,
        class_W.astype(int),
        level_W.astype(int),
        np.stack([older_P, newer_P], 1),
        np.cumsum([0, *long_K, *long_P]),
        np.concatenate([successors, successors[first_K[newer_X] + places]]),
        np.concatenate([level_one, level_two]).astype(int),
        ones,
    )
    return ngram, LexiconWeights(*values)


def _front_coded(words: Sequence[str]) -> list[str]:
    shared = [len(os.path.commonprefix(pair)) for pair in zip(["", *words], words, strict=False)]
    return [f"{min(9, n)}{word[min(9, n) :]}" for n, word in zip(shared, words, strict=True)]


def _read_front_coded(lines: Sequence[str]) -> list[str]:
    words, before = [], ""
    for line in lines:
        if not line[:1].isdecimal():
            raise ValueError("a word does not tell what it shares")
        before = before[: int(line[0])] + line[1:]
        words.append(before)
    return words


def _gaps(rows: Sequence[Array]) -> Array:
    """Increasing numbers of each row as distances, the first one from -1, less 1."""
    found = [np.diff(row, prepend=-1) - 1 for row in rows]
    return np.concatenate([np.zeros(0, int), *found])


def _read_gaps(gaps: Array, lengths: Array, below: int) -> Array:
    """What `_gaps` was given, rows one behind the other. Raises ValueError for a number that is not below `below`."""
    if (lengths < 0).any() or lengths.sum() != len(gaps) or (gaps < 0).any():
        raise ValueError("its rows do not fit")
    ends = np.cumsum(gaps.astype(int) + 1)
    first = np.cumsum(lengths) - lengths
    before = np.concatenate([[0], ends])[first]
    found = ends - np.repeat(before, lengths) - 1
    if (found >= below).any():
        raise ValueError("a number is too large")
    return found
