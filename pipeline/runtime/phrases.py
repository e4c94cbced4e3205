"""Phrases that a speaker may well say (contacts, appliances, songs) from a text file into a bias.

    anna smith              one phrase a line, letters as the recogniser spells them
    living room lamp  3.5   its score in nats a token, after a tab; else what `PhraseBonus` says
    [call, text]            the phrases below count only right after one of these words …
    []                      … and below this again anywhere
    # a remark

Source of activation prefixes: see `decoding/biasing.py`.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.biasing import BiasGroup, BiasTrie
from pipeline.decoding.lexicon import Lexicon, word_begins
from pipeline.errors import UserError

NAME = "phrases.json"
MAX_PHRASES = 100_000


@dataclass(frozen=True)
class PhraseBonus:
    """What a phrase of N is worth, in nats: score * tokens - size_cost * ln N, at least 0.

    A prior of 1/N for each phrase of a list takes ln N off; the score stands for what the recogniser, which knows no
    list, holds against a phrase. Short phrases, the frequent words among them, earn nothing in a long list, where one
    of them is ever near what was said.
    """

    score: float = 2.0
    size_cost: float = 1.0

    def per_token(self, num_tokens: int, num_phrases: int) -> float:
        """Nats a token of a phrase of `num_tokens` in a list of `num_phrases`."""
        return max(0.0, self.score - self.size_cost * math.log(num_phrases) / num_tokens)


def find_bonus(recogniser: str | Path) -> PhraseBonus:
    """The bonus that the run of the packed file `recogniser` chose on its dev set (data/pack/model.sotto →
    data/stream/phrases.json); the default where there is none. Raises UserError for a file that is not one.
    """
    path = Path(recogniser).parent.parent / "stream" / NAME
    if not path.is_file():
        return PhraseBonus()
    try:
        bonus = PhraseBonus(**json.loads(path.read_text(encoding="utf-8")))
        if not all(math.isfinite(value) and value >= 0 for value in (bonus.score, bonus.size_cost)):
            raise ValueError
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: must hold score and size_cost, 0 or more; run `dvc repro stream`"
        ) from error
    return bonus


def read_phrases(
    path: str | Path,
    tokenizer: Tokenizer,
    bonus: PhraseBonus = PhraseBonus(),
    lexicon: Lexicon | None = None,
) -> BiasTrie:
    """The bias of a phrase file; `lexicon` as for `bias_of`. Raises UserError naming the line that is wrong."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no readable text file of phrases") from error
    if len(lines) > MAX_PHRASES:
        raise UserError(f"{path}: {len(lines)} lines are more than the {MAX_PHRASES} phrases allowed")
    sections: list[tuple[list[list[int]], list[tuple[list[int], float | None, float]]]] = [([], [])]
    for number, line in enumerate(lines, 1):
        line, where = line.split("#")[0].strip(), f"{path}, line {number}"
        if line.startswith("[") and line.endswith("]"):
            words = [word.strip() for word in line[1:-1].split(",")]
            sections.append(([spelled(word, tokenizer, where) for word in words if word], []))
        elif line:
            phrase, _, number_text = line.partition("\t")
            tokens = spelled(phrase, tokenizer, where)
            again = _known_again(_plain(phrase), tokens, lexicon)
            sections[-1][1].append((tokens, _score(number_text, where), again))
    size = sum(len(phrases) for _, phrases in sections)
    groups = [
        BiasGroup(
            [(ids, (bonus.per_token(len(ids), size) if s is None else s) + more) for ids, s, more in phrases],
            prefixes,
        )
        for prefixes, phrases in sections
    ]
    try:
        return BiasTrie.from_groups(groups, word_begins(tokenizer))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def bias_of(
    phrases: Iterable[str],
    tokenizer: Tokenizer,
    bonus: PhraseBonus = PhraseBonus(),
    lexicon: Lexicon | None = None,
) -> BiasTrie:
    """The bias of phrases that count anywhere; `lexicon`: of the search that will use it, for a word in the list is a
    known one. Raises UserError for a phrase that the recogniser cannot spell.
    """
    phrases = list(map(_plain, phrases))
    spellings = tokenizer.encode_all(phrases)
    for phrase, tokens in zip(phrases, spellings, strict=True):
        if not _is_spelling(tokens, tokenizer):
            raise _cannot_spell("phrases", phrase)
    worth = [
        bonus.per_token(length, len(phrases)) for length in range(1, 1 + max(map(len, spellings), default=0))
    ]
    scored = [
        (tokens, worth[len(tokens) - 1] + _known_again(phrase, tokens, lexicon))
        for phrase, tokens in zip(phrases, spellings, strict=True)
    ]
    return BiasTrie.build(scored, (), word_begins(tokenizer))


def can_spell(phrase: str, tokenizer: Tokenizer) -> bool:
    """Whether the recogniser has tokens for all letters of a phrase."""
    return _is_spelling(tokenizer.encode(_plain(phrase)), tokenizer)


def spelled(phrase: str, tokenizer: Tokenizer, where: str) -> list[int]:
    """Token ids of a phrase in lower case."""
    tokens = tokenizer.encode(_plain(phrase))
    if not _is_spelling(tokens, tokenizer):
        raise _cannot_spell(where, phrase)
    return tokens


def _known_again(phrase: str, tokens: Sequence[int], lexicon: Lexicon | None) -> float:
    """Nats a token that give back what the phrase's unknown words cost the search."""
    if lexicon is None:
        return 0.0
    return (
        lexicon.weights.oov_penalty * sum(word not in lexicon.words for word in phrase.split()) / len(tokens)
    )


def _plain(phrase: str) -> str:
    return " ".join(phrase.lower().split())


def _is_spelling(tokens: Sequence[int], tokenizer: Tokenizer) -> bool:
    return bool(tokens) and tokenizer.unknown_id not in tokens


def _cannot_spell(where: str, phrase: str) -> UserError:
    return UserError(f"{where}: {phrase!r} has letters that the recogniser cannot spell")


def _score(text: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{where}: {text.strip()!r} is no score; a number of nats a token") from error
