"""A small generative grammar: patterns of words, alternatives, options, slots and names.

Pattern syntax (whitespace separates words):
    (a|b c)      one of the alternatives, equally likely
    [a]          `a` in half of the draws
    $rule        one of the patterns of `rule`, or a name if `rule` is a list of names
    {slot}       $slot, recorded as a slot; {slot=rule} records what `rule` gives under `slot`
In the texts that `read_rules` and `read_intents` take, a line at the margin is a name (with an intent's
weight), a line indented by four is a pattern, and one indented by more goes on with the pattern above.

Names follow Zipf's law by their place in the list. Every fifth name is unseen: it is drawn only where the
caller asks for it (the dev and test splits), so that a share of the test names was never trained on.
"""

import itertools
import re
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random

ZIPF_EXPONENT = 1.1
ZIPF_SHIFT = 4  # rank r has weight (r + shift) ** -exponent: flattens the head, leaves the tail
UNSEEN_EVERY = 5


@dataclass(frozen=True)
class Language:
    """What the generator needs of a language. `intents`: name → (weight, patterns); `rules`: name → patterns;
    `contractions`: (what the patterns give, what is said).
    """

    intents: dict[str, tuple[float, list[str]]]
    rules: dict[str, list[str]]
    names: dict[str, list[str]]
    contractions: tuple[tuple[str, str], ...] = ()


@dataclass
class Sentence:
    """One drawn command. `names` holds (list, rank, name)."""

    intent: str
    words: list[str] = field(default_factory=list)
    slots: dict[str, str | list[str]] = field(default_factory=dict)
    names: list[tuple[str, int, str]] = field(default_factory=list)
    text: str = ""
    wants_unseen: bool = False
    has_unseen: bool = False


def read_rules(text: str) -> dict[str, list[str]]:
    """Name → patterns of a text as above."""
    rules: dict[str, list[str]] = {}
    for line in filter(None, text.splitlines()):
        if not line.startswith(" "):
            patterns = rules.setdefault(line, [])
        elif line.startswith("     "):
            patterns[-1] += " " + line.strip()
        else:
            patterns.append(line.strip())
    return rules


def read_intents(text: str) -> dict[str, tuple[float, list[str]]]:
    """Intent → (weight, patterns) of a text as above."""
    heads_and_patterns = ((head.split(), patterns) for head, patterns in read_rules(text).items())
    return {name: (float(weight), patterns) for (name, weight), patterns in heads_and_patterns}


def split_names(text: str) -> list[str]:
    """The names of a text in which "|" separates them."""
    return [" ".join(name.split()) for name in text.split("|")]


def is_unseen(rank: int) -> bool:
    """Whether the name of this rank (0 = most frequent) is kept from training."""
    return rank % UNSEEN_EVERY == UNSEEN_EVERY - 1


class Generator:
    """Compiles a `Language` once; `draw` is then some tens of microseconds."""

    def __init__(self, language: Language):
        self._language = language
        self._rules: dict[str, Callable] = {}
        self._intents = list(language.intents)
        self._intent_weights = list(itertools.accumulate(weight for weight, _ in language.intents.values()))
        self._patterns = {
            intent: [_compile(pattern, self) for pattern in patterns]
            for intent, (_, patterns) in language.intents.items()
        }

    def draw(self, random: Random, wants_unseen: bool = False) -> Sentence:
        """One command; with `wants_unseen`, its first name (if it has one) is an unseen one."""
        position = bisect(self._intent_weights, random.random() * self._intent_weights[-1])
        intent = self._intents[min(position, len(self._intents) - 1)]
        sentence = Sentence(intent, wants_unseen=wants_unseen)
        _pick(random, self._patterns[intent])(random, sentence)
        sentence.text = self._say(sentence.words)
        sentence.slots = {slot: self._say(words) for slot, words in sentence.slots.items()}
        return sentence

    def _say(self, words: list[str]) -> str:
        text = f" {' '.join(words)} "
        for written, said in self._language.contractions:
            text = text.replace(written, said)
        return text.strip()

    def rule(self, name: str) -> Callable:
        """The compiled rule or name list called `name`. Raises KeyError if the language has neither."""
        if name not in self._rules:
            if name in self._language.names:
                self._rules[name] = _name_list(name, self._language.names[name])
            else:
                patterns = self._language.rules[name]
                self._rules[name] = _choice([_compile(pattern, self) for pattern in patterns])
        return self._rules[name]


@cache
def _head_heavy(count: int) -> list[float]:
    """Cumulated weights 1/2, 1/3, 1/4 … of `count` options: what stands first is said most, as people do."""
    return list(itertools.accumulate(1 / (rank + 2) for rank in range(count)))


def _pick(random: Random, options: list):
    weights = _head_heavy(len(options))
    return options[min(bisect(weights, random.random() * weights[-1]), len(options) - 1)]


def _choice(options: list[Callable]) -> Callable:
    if len(options) == 1:
        return options[0]
    return lambda random, sentence: _pick(random, options)(random, sentence)


def _words(words: list[str]) -> Callable:
    return lambda random, sentence: sentence.words.extend(words)


def _sequence(parts: list[Callable]) -> Callable:
    def draw(random: Random, sentence: Sentence) -> None:
        for part in parts:
            part(random, sentence)

    return parts[0] if len(parts) == 1 else draw


def _option(part: Callable) -> Callable:
    return lambda random, sentence: part(random, sentence) if random.random() < 0.5 else None


def _slot(slot: str, part: Callable) -> Callable:
    def draw(random: Random, sentence: Sentence) -> None:
        start = len(sentence.words)
        part(random, sentence)
        sentence.slots[slot] = sentence.words[start:]

    return draw


def _name_list(kind: str, names: list[str]) -> Callable:
    """Zipf draws, separately among the seen and the unseen names."""
    tables = {}
    for unseen in (False, True):
        ranks = [rank for rank in range(len(names)) if is_unseen(rank) == unseen]
        weights = list(itertools.accumulate((rank + ZIPF_SHIFT) ** -ZIPF_EXPONENT for rank in ranks))
        tables[unseen] = ranks, weights
    split_names = [name.split() for name in names]

    def draw(random: Random, sentence: Sentence) -> None:
        unseen = sentence.wants_unseen and not sentence.has_unseen
        ranks, weights = tables[unseen]
        rank = ranks[min(bisect(weights, random.random() * weights[-1]), len(ranks) - 1)]
        sentence.has_unseen |= unseen
        sentence.names.append((kind, rank, names[rank]))
        sentence.words.extend(split_names[rank])

    return draw


_TOKEN = re.compile(r"[()\[\]|]|\$\w+|\{\w+(?:=\w+)?\}|[^\s()\[\]|${}]+")


def _compile(pattern: str, generator: Generator) -> Callable:
    tokens = _TOKEN.findall(pattern)
    if "".join(tokens) != "".join(pattern.split()):
        raise ValueError(f"bad pattern: {pattern}")
    part, rest = _alternatives(tokens, generator)
    if rest:
        raise ValueError(f"unbalanced brackets: {pattern}")
    return part


def _alternatives(tokens: list[str], generator: Generator) -> tuple[Callable, list[str]]:
    options, parts = [], []
    while tokens and tokens[0] not in ")]":
        token, tokens = tokens[0], tokens[1:]
        if token == "|":
            options.append(_sequence(parts or [_words([])]))
            parts = []
        elif token in "([":
            part, tokens = _alternatives(tokens, generator)
            if not tokens or tokens[0] != {"(": ")", "[": "]"}[token]:
                raise ValueError("unbalanced brackets")
            tokens = tokens[1:]
            parts.append(part if token == "(" else _option(part))
        elif token[0] == "$":
            parts.append(generator.rule(token[1:]))
        elif token[0] == "{":
            slot, _, rule = token[1:-1].partition("=")
            parts.append(_slot(slot, generator.rule(rule or slot)))
        else:
            parts.append(_words([token]))
    options.append(_sequence(parts or [_words([])]))
    return _choice(options), tokens
