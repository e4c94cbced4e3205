"""Groups of bias phrases, each with its activation prefixes, as one list for the machine of `bias_machine.py`.

A phrase that counts after several prefixes stands once behind a gate that all of them open, not once after each. A
gate forgets which prefix opened it, so that only prefixes may open one after which that tells nothing: where such a
prefix ends, nothing else that has begun goes on as its phrases do, and nothing has been earned. The others are put in
front of their phrases.

Shapes: Q phrases, X tokens of all of them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from pipeline.decoding.token_lattice import BLANK_ID
from pipeline.errors import UserError

MAX_TOKEN = 2**20  # a table as long as the largest token is kept
Array = np.ndarray
Tokens = Sequence[int]
Prefix = tuple[int, ...]


@dataclass(frozen=True)
class BiasGroup:
    """Phrases with their scores (per token); with `prefixes`, they count only right after one of these."""

    phrases: Sequence[tuple[Tokens, float]]
    prefixes: Sequence[Tokens] = ()


class Phrases(NamedTuple):
    """As `build_machine` takes them: tokens of all phrases, one phrase after the other; how many each has; its score;
    its tokens that earn nothing; the gate behind which it stands, the one that it opens (a prefix then), 0 for none.
    """

    tokens_X: Array
    lengths_Q: Array
    scores_Q: Array
    free_Q: Array
    behind_Q: Array
    opens_Q: Array

    @property
    def starts_Q(self) -> Array:
        return self.lengths_Q.cumsum() - self.lengths_Q

    def of(self, chosen_Q: Array) -> "Phrases":
        """Those with these numbers, which may come several times."""
        lengths_Q = self.lengths_Q[chosen_Q]
        shift_Q = self.starts_Q[chosen_Q] - (lengths_Q.cumsum() - lengths_Q)
        tokens_X = self.tokens_X[np.repeat(shift_Q, lengths_Q) + np.arange(lengths_Q.sum())]
        return Phrases(tokens_X, *(each_Q[chosen_Q] for each_Q in self[1:]))

    def after(self, prefix: Tokens) -> "Phrases":
        """Each phrase with an activation prefix in front of it."""
        places = np.repeat(self.starts_Q, len(prefix))
        tokens_X = np.insert(self.tokens_X, places, np.tile(prefix, len(self.lengths_Q)))
        lengths_Q, free_Q = self.lengths_Q + len(prefix), self.free_Q + len(prefix)
        return self._replace(tokens_X=tokens_X, lengths_Q=lengths_Q, free_Q=free_Q)


def arranged(groups: Sequence[BiasGroup], begins_V: Array) -> Phrases:
    """The phrases of all groups, without those of score 0, which never pay.

    `begins_V`: as of `BiasTrie`. Raises UserError for an empty phrase or prefix, a token that is blank or no token, and
    a score that is negative or not finite.
    """
    scored = [pair for group in groups for pair in group.phrases]
    every = _checked([tokens for tokens, _ in scored], [score for _, score in scored], "bias phrase")
    group_Q = np.repeat(np.arange(len(groups)), [len(group.phrases) for group in groups])
    group_Q[every.scores_Q == 0] = -1
    members = [np.flatnonzero(group_Q == number) for number in range(len(groups))]
    groups_of: dict[Prefix, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        for prefix in dict.fromkeys(map(tuple, group.prefixes)):
            groups_of[prefix].append(number)
    _checked(list(groups_of), [0.0] * len(groups_of), "activation prefix")
    anywhere = [members[number] for number, group in enumerate(groups) if not group.prefixes]
    plain = every.of(_together(anywhere))
    first_Q = every.tokens_X[every.starts_Q]
    firsts = [set(first_Q[each].tolist()) for each in members]
    alone = _standing_alone(groups_of, firsts, plain, begins_V)
    gated = _gated(every, members, {prefix: groups_of.pop(prefix) for prefix in alone})
    copies = [
        every.of(members[number]).after(prefix) for prefix, numbers in groups_of.items() for number in numbers
    ]
    return Phrases(*map(np.concatenate, zip(plain, *gated, *copies, strict=True)))


def _gated(
    every: Phrases, members: Sequence[Array], groups_of: Mapping[Prefix, Sequence[int]]
) -> tuple[Phrases, Phrases]:
    """The prefixes as openers of gates, one for all prefixes of the same groups; the phrases behind these."""
    gates: dict[tuple[int, ...], int] = {}
    opens = [gates.setdefault(tuple(numbers), 1 + len(gates)) for numbers in groups_of.values()]
    openers = _checked(list(groups_of), [0.0] * len(groups_of), "activation prefix")
    behind = [(members[number], gate) for numbers, gate in gates.items() for number in numbers]
    gate_Q = np.repeat(np.array([gate for _, gate in behind], np.int64), [len(each) for each, _ in behind])
    phrases = every.of(_together([each for each, _ in behind]))
    return openers._replace(opens_Q=np.array(opens, np.int64)), phrases._replace(behind_Q=gate_Q)


def _together(numbers: Sequence[Array]) -> Array:
    return np.concatenate([np.zeros(0, np.int64), *numbers])


def _checked(sequences: Sequence[Tokens], scores: Sequence[float], what: str) -> Phrases:
    """`sequences` with their scores; UserError, naming them `what`, for the first that cannot be boosted."""
    lengths_Q = np.fromiter(map(len, sequences), np.int64, len(sequences))
    if not lengths_Q.all():
        raise UserError(f"{what} {int(lengths_Q.argmin())} is empty; it needs at least one token")
    scores_Q = np.array(scores, dtype=float)
    wrong_Q = ~(np.isfinite(scores_Q) & (scores_Q >= 0))
    if wrong_Q.any():
        index = int(wrong_Q.argmax())
        raise UserError(f"{what} {index} has score {scores[index]}; a score is a finite number, 0 or more")
    tokens_X = np.fromiter(chain.from_iterable(sequences), np.int64, int(lengths_Q.sum()))
    wrong_X = (tokens_X <= BLANK_ID) | (tokens_X >= MAX_TOKEN)
    if wrong_X.any():
        place = int(wrong_X.argmax())
        index = int(np.searchsorted(lengths_Q.cumsum(), place, side="right"))
        raise UserError(
            f"{what} {index} has token {tokens_X[place]}; tokens are {BLANK_ID + 1} to {MAX_TOKEN - 1}, without blank"
        )
    none_Q = np.zeros_like(lengths_Q)
    return Phrases(tokens_X, lengths_Q, scores_Q, none_Q, none_Q, none_Q)


def _standing_alone(
    groups_of: Mapping[Prefix, Sequence[int]], firsts: Sequence[set[int]], plain: Phrases, begins_V: Array
) -> list[Prefix]:
    """The prefixes that may open a gate. `groups_of`: the numbers of their groups; `firsts`: first tokens of each
    group's phrases; `plain`: the phrases that count anywhere.
    """
    firsts_of = {prefix: set().union(*(firsts[n] for n in numbers)) for prefix, numbers in groups_of.items()}
    first_Q = plain.tokens_X[plain.starts_Q]
    begun = {*first_Q.tolist(), *(prefix[0] for prefix in groups_of)}
    near = plain.of(np.flatnonzero(np.isin(first_Q, [prefix[0] for prefix in groups_of])))
    tokens, starts, lengths = near.tokens_X.tolist(), near.starts_Q.tolist(), near.lengths_Q.tolist()
    counting = {tuple(tokens[start : start + length]) for start, length in zip(starts, lengths, strict=True)}
    clashing: set[Prefix] = set()
    for rival in chain(counting, groups_of):
        for end in range(1, len(rival)):
            if (prefix := rival[:end]) in groups_of and rival[end] in firsts_of[prefix]:
                clashing |= {prefix, rival}
    for prefix in groups_of:
        for end in range(1, len(prefix) + 1):
            ends = end == len(prefix) or bool(begins_V[min(prefix[end], len(begins_V) - 1)])
            if ends and prefix[:end] in counting:
                clashing.add(prefix)
    return [
        prefix
        for prefix in groups_of
        if firsts_of[prefix] and prefix not in clashing and not any(token in begun for token in prefix[1:])
    ]
