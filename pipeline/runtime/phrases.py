"""Phrases that a speaker may well say (contacts, appliances, songs) from a text file into a bias.

    anna smith              one phrase a line, letters as the recogniser spells them
    living room lamp  3.5   its score in nats a token, after a tab; else what `PhraseBonus` says
    [call, text]            the phrases below count only right after one of these words …
    [@contact]              … after the words that came before contacts in the training transcripts (prefixes.json) …
    []                      … and below this again anywhere
    # a remark

Source of activation prefixes: see `decoding/biasing.py`.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.bias_groups import BiasGroup
from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import Lexicon, word_begins
from pipeline.errors import UserError

NAME = "phrases.json"
PREFIXES_NAME = "prefixes.json"
MAX_PHRASES = 100_000
_ANYWHERE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PhraseBonus:
    """What a phrase of N is worth, in nats, at least 0:

        score * tokens of words that the lexicon knows + unknown_score * tokens of others - size_cost * ln N

    Without a lexicon all words are known. A prior of 1/N for each phrase of a list takes ln N off; the scores stand
    for what the recogniser, which knows no list, holds against a phrase: most against words of which it knows nothing.
    Short phrases, the frequent words among them, earn nothing in a long list, where one of them is ever near what was
    said.
    """

    score: float = 2.4
    unknown_score: float = 4.0
    size_cost: float = 1.25

    def per_token(self, num_tokens_Q: np.ndarray, num_unknown_Q: np.ndarray, num_phrases: int) -> np.ndarray:
        """Nats a token of phrases of so many tokens, so many of them of unknown words, in a list of `num_phrases`."""
        more_Q = (self.unknown_score - self.score) * num_unknown_Q - self.size_cost * math.log(
            max(1, num_phrases)
        )
        return np.maximum(0.0, self.score + more_Q / num_tokens_Q)


def find_bonus(recogniser: str | Path) -> PhraseBonus:
    """The bonus that the run of the packed file `recogniser` chose on its dev set (data/pack/model.sotto →
    data/stream/phrases.json); the default where there is none. Raises UserError for a file that is not one.
    """
    path = Path(recogniser).parent.parent / "stream" / NAME
    if not path.is_file():
        return PhraseBonus()
    try:
        bonus = PhraseBonus(**json.loads(path.read_text(encoding="utf-8")))
        if not all(math.isfinite(value) and value >= 0 for value in asdict(bonus).values()):
            raise ValueError
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: must hold score, unknown_score and size_cost, 0 or more; run `dvc repro stream`"
        ) from error
    return bonus


def find_prefixes(recogniser: str | Path) -> dict[str, list[str]]:
    """The words before names of each kind that the run of the packed file `recogniser` learnt (data/pack/model.sotto →
    data/stream/prefixes.json), an empty list where they count anywhere; none at all where there is no such file. Raises
    UserError for a file that is not one.
    """
    path = Path(recogniser).parent.parent / "stream" / PREFIXES_NAME
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(word, str) for words in found.values() for word in words):
            raise ValueError
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: must hold a list of words for each kind; run `dvc repro stream`") from error
    return found


def read_phrases(
    path: str | Path,
    tokenizer: Tokenizer,
    bonus: PhraseBonus = PhraseBonus(),
    lexicon: Lexicon | None = None,
    kinds: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> BiasTrie:
    """The bias of a phrase file; `lexicon` as for `bias_of`, `kinds` as of `find_prefixes`. Raises UserError naming the
    line that is wrong.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no readable text file of phrases") from error
    if len(lines) > MAX_PHRASES:
        raise UserError(f"{path}: {len(lines)} lines are more than the {MAX_PHRASES} phrases allowed")
    begins_V = word_begins(tokenizer)
    begins = begins_V.tolist()
    heads: list[list[list[int]]] = [[]]
    sections, spellings, scores, unknown = [], [], [], []
    for number, line in enumerate(lines, 1):
        line, where = line.split("#")[0].strip(), f"{path}, line {number}"
        if line.startswith("[") and line.endswith("]"):
            words = [word for item in line[1:-1].split(",") for word in _words(item.strip(), kinds, where)]
            heads.append([spelled(word, tokenizer, where) for word in words])
        elif line:
            phrase, _, number_text = line.partition("\t")
            sections.append(len(heads) - 1)
            spellings.append(spelled(phrase, tokenizer, where))
            scores.append(_score(number_text, where))
            unknown.append(_unknown(_plain(phrase), spellings[-1], begins, lexicon))
    groups: list[list[tuple[list[int], float]]] = [[] for _ in heads]
    phrases = zip(sections, spellings, scores, unknown, _worths(spellings, unknown, bonus), strict=True)
    for section, tokens, score, owing, worth in phrases:
        groups[section].append((tokens, worth if score is None else score + owing.owed))
    try:
        return BiasTrie.from_groups(list(map(BiasGroup, groups, heads)), begins_V)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def bias_of(
    phrases: Iterable[str],
    tokenizer: Tokenizer,
    bonus: PhraseBonus = PhraseBonus(),
    lexicon: Lexicon | None = None,
    after: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> BiasTrie:
    """The bias of phrases, each right after one of the words that `after` has for it, or anywhere; `lexicon`: of the
    search that will use it, for a word in the list is a known one. Raises UserError for a phrase or word that the
    recogniser cannot spell.
    """
    phrases = _plain_all(list(phrases))
    spellings = _spelled_all(phrases, tokenizer, "phrases")
    begins_V = word_begins(tokenizer)
    begins = begins_V.tolist()
    words = lexicon.words if lexicon else ()
    unknown = [  # most phrases of a long list are words of the lexicon, and a call for each of them would cost time
        _ALL_KNOWN if phrase in words else _unknown(phrase, tokens, begins, lexicon)
        for phrase, tokens in zip(phrases, spellings, strict=True)
    ]
    worths = _worths(spellings, unknown, bonus)
    groups: dict[frozenset[str], list[tuple[Sequence[int], float]]] = defaultdict(list)
    for phrase, tokens, worth in zip(phrases, spellings, worths, strict=True):
        groups[after.get(phrase, _ANYWHERE)].append((tokens, worth))
    before = sorted(frozenset().union(*groups))
    prefixes = dict(zip(before, _spelled_all(before, tokenizer, "activation prefixes"), strict=True))
    return BiasTrie.from_groups(
        [BiasGroup(scored, [prefixes[word] for word in sorted(behind)]) for behind, scored in groups.items()],
        begins_V,
    )


def _words(item: str, kinds: Mapping[str, Sequence[str]], where: str) -> Sequence[str]:
    """The words of one item of a section's head: itself, or those of a kind."""
    if not item.startswith("@"):
        return [item] if item else []
    if item[1:] not in kinds:
        known = ", ".join(f"@{kind}" for kind in kinds) or "none; run `dvc repro stream`"
        raise UserError(f"{where}: no kind of name {item!r}; known are {known}")
    return kinds[item[1:]]


def can_spell(phrase: str, tokenizer: Tokenizer) -> bool:
    """Whether the recogniser has tokens for all letters of a phrase."""
    return _is_spelling(tokenizer.encode(_plain(phrase)), tokenizer)


def spelled(phrase: str, tokenizer: Tokenizer, where: str) -> list[int]:
    """Token ids of a phrase in lower case."""
    tokens = tokenizer.encode(_plain(phrase))
    if not _is_spelling(tokens, tokenizer):
        raise _cannot_spell(where, phrase)
    return tokens


def _spelled_all(phrases: Sequence[str], tokenizer: Tokenizer, where: str) -> list[list[int]]:
    spellings = tokenizer.encode_all(phrases)
    if not all(spellings) or tokenizer.unknown_id in set(chain.from_iterable(spellings)):
        wrong = (tokens for tokens in spellings if not _is_spelling(tokens, tokenizer))
        raise _cannot_spell(where, phrases[spellings.index(next(wrong))])
    return spellings


class _Unknown(NamedTuple):
    """Of a phrase: how many `tokens` its unknown words have; nats a token that the search takes for them (`owed`)."""

    tokens: int
    owed: float


_ALL_KNOWN = _Unknown(0, 0.0)


def _unknown(phrase: str, tokens: Sequence[int], begins: Sequence[bool], lexicon: Lexicon | None) -> _Unknown:
    if lexicon is None or phrase in lexicon.words:
        return _ALL_KNOWN
    strange = [word not in lexicon.words for word in phrase.split()] if " " in phrase else [True]
    owed = lexicon.weights.oov_penalty * sum(strange) / len(tokens)
    if all(strange):
        return _Unknown(len(tokens), owed)
    num_tokens, word = 0, -1
    for token in tokens:
        word += begins[token]
        num_tokens += strange[word]
    return _Unknown(num_tokens, owed)


def _worths(
    spellings: Sequence[Sequence[int]], unknown: Sequence[_Unknown], bonus: PhraseBonus
) -> list[float]:
    """Nats a token of each phrase of a list, with what the search takes for unknown words given back."""
    num_tokens_Q = np.array([len(tokens) for tokens in spellings])
    num_unknown_Q = np.array([each.tokens for each in unknown], float)
    owed_Q = np.array([each.owed for each in unknown], float)
    return (bonus.per_token(num_tokens_Q, num_unknown_Q, len(spellings)) + owed_Q).tolist()


def _plain(phrase: str) -> str:
    return " ".join(phrase.lower().split())


def _plain_all(phrases: list[str]) -> list[str]:
    """`_plain` of each. One look at all of them tells whether a list is plain already, as most are."""
    text = ",".join(phrases)  # printable: no white space but " "
    odd = any(gap in text for gap in ("  ", ", ", " ,")) or text != text.strip()
    plain = text.isprintable() and text == text.lower() and not odd
    return phrases if plain else list(map(_plain, phrases))


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
