"""Phrases that a speaker may well say (contacts, appliances, songs) from a text file into a bias.

    anna smith              one phrase a line, letters as the recogniser spells them
    living room lamp  3.5   its score in nats a token, after a tab; else the default
    [call, text]            the phrases below count only right after one of these words …
    []                      … and below this again anywhere
    # a remark

Source of activation prefixes: see `decoding/biasing.py`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.biasing import BiasGroup, BiasTrie
from pipeline.errors import UserError

DEFAULT_SCORE = 0.8  # nats a token
MAX_PHRASES = 100_000


def read_phrases(path: str | Path, tokenizer: Tokenizer, score: float = DEFAULT_SCORE) -> BiasTrie:
    """The bias of a phrase file. Raises UserError naming the line that is wrong."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no readable text file of phrases") from error
    if len(lines) > MAX_PHRASES:
        raise UserError(f"{path}: {len(lines)} lines are more than the {MAX_PHRASES} phrases allowed")
    groups: list[BiasGroup] = []
    phrases: list[tuple[Sequence[int], float]] = []
    prefixes: list[list[int]] = []
    for number, line in enumerate(lines, 1):
        line, where = line.split("#")[0].strip(), f"{path}, line {number}"
        if line.startswith("[") and line.endswith("]"):
            groups.append(BiasGroup(phrases, prefixes))
            words = [word.strip() for word in line[1:-1].split(",")]
            phrases, prefixes = [], [spelled(word, tokenizer, where) for word in words if word]
        elif line:
            phrase, _, number_text = line.partition("\t")
            phrases.append((spelled(phrase, tokenizer, where), _score(number_text, score, where)))
    try:
        return BiasTrie.from_groups([*groups, BiasGroup(phrases, prefixes)])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def bias_of(phrases: Iterable[str], tokenizer: Tokenizer, score: float = DEFAULT_SCORE) -> BiasTrie:
    """The bias of phrases that count anywhere. Raises UserError for one that the recogniser cannot spell."""
    return BiasTrie.build([(spelled(phrase, tokenizer, "phrases"), score) for phrase in phrases])


def spelled(phrase: str, tokenizer: Tokenizer, where: str) -> list[int]:
    """Token ids of a phrase in lower case."""
    tokens = tokenizer.encode(" ".join(phrase.lower().split()))
    if not tokens or tokenizer.unknown_id in tokens:
        raise UserError(f"{where}: {phrase!r} has letters that the recogniser cannot spell")
    return tokens


def _score(text: str, default: float, where: str) -> float:
    if not text.strip():
        return default
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{where}: {text.strip()!r} is no score; a number of nats a token") from error
