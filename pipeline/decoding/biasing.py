"""Contextual shallow fusion: an Aho-Corasick machine over token ids that pays a bonus for bias phrases.

Zhao et al., Interspeech 2019 (sub-word phrases, activation prefixes, failure arcs that take credit back); Aho &
Corasick, CACM 1975. icefall's `ContextGraph` is the same idea, but pays twice for a phrase within a phrase.

What a token sequence earns, whatever the search does in between:

    worth(phrase) = score * (tokens of the phrase, those of its activation prefix not counted)
    gain(phrase)  = worth(phrase) - earned(phrase without its last token, which comes next)
    earned(sequence) = sum over its positions of the largest gain among the phrases that end there, at least 0;
        only positions count where the next token begins a word, or where the sequence is at its end

So "anna", "smith" and "anna smith" in one list pay for "anna smith" what "anna smith" is worth, and no phrase is ever
paid less because another one is in the list. A search cannot wait for the end of a phrase, so `step` lends it: each
node holds a credit that the next step takes back, as a difference of potentials, so that a path that leaves a phrase
half-way nets 0. A phrase that ends within a word ("an" of "anna") is left half-way too. Bonuses are natural-log
units if the scores are.

Shapes: Q phrases, L tokens of the longest, G nodes (0 is the root, then level by level), A arcs, K hypotheses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pipeline.decoding.token_lattice import BLANK_ID
from pipeline.errors import UserError

MAX_TOKEN = 2**20  # a table as long as the largest token is kept
_ROOT = 0
Array = np.ndarray
EVERY_TOKEN: np.ndarray = np.ones(1, bool)  # `begins_V` where any token may follow a phrase
_NO_ARC = np.iinfo(np.int64).max  # after the last key, so that every search ends on a key

Tokens = Sequence[int]


@dataclass(frozen=True)
class BiasGroup:
    """Phrases with their scores (per token); with `prefixes`, they count only right after one of these."""

    phrases: Sequence[tuple[Tokens, float]]
    prefixes: Sequence[Tokens] = ()


@dataclass(frozen=True, eq=False)
class BiasTrie:
    """The machine. A state is one int, so it can stand in a hypothesis and be compared when paths merge.

    `keys_A` (sorted, node * stride + token) lead to `targets_A`; a token without an arc leads to where the root goes
    with it. `credit_G` is lent while a node is held; of it, `pending_G` is earned for good when the next token begins a
    word (`begins_V`, whose last entry stands for all tokens behind it) or none comes.
    """

    keys_A: Array
    targets_A: Array
    root_targets: Array
    credit_G: Array
    pending_G: Array
    begins_V: Array

    @classmethod
    def build(
        cls,
        phrases: Sequence[tuple[Tokens, float]],
        prefixes: Sequence[Tokens] = (),
        begins_V: Array = EVERY_TOKEN,
    ) -> "BiasTrie":
        """The machine of one group: `phrases` are (token ids, bonus per token), no phrases never pay.

        `begins_V`: which tokens begin a word; without it a phrase may end anywhere.

        With `prefixes` (token ids, such as those of "call"), a phrase counts only right after one of them; the
        prefix itself earns nothing. Of equal phrases the one that is worth most counts. Raises UserError for an empty
        phrase or prefix, a token that is blank or no token, and a score that is negative or not finite.
        """
        return cls.from_groups([BiasGroup(phrases, prefixes)], begins_V)

    @classmethod
    def from_groups(cls, groups: Sequence[BiasGroup], begins_V: Array = EVERY_TOKEN) -> "BiasTrie":
        """One machine for groups with prefixes of their own: contacts after "call", lamps after "turn on".

        A group has as many nodes as all its phrases after all its prefixes would have. Raises as `build`.
        """
        sequences: list[Tokens] = []
        scores: list[float] = []
        free: list[int] = []  # tokens of the activation prefix, which earn nothing
        for group in groups:
            prefixes = [list(prefix) for prefix in group.prefixes]
            _check(prefixes, [0.0] * len(prefixes), "activation prefix")
            group_scores = [score for _, score in group.phrases]
            phrases = [tokens for tokens, _ in group.phrases]
            _check(phrases, group_scores, "bias phrase")
            for prefix in prefixes or [[]]:
                sequences += [[*prefix, *tokens] for tokens in phrases] if prefix else phrases
                scores += group_scores
                free += [len(prefix)] * len(phrases)
        return _build(sequences, np.array(scores, dtype=float), np.array(free, dtype=np.int64), begins_V)

    @property
    def num_nodes(self) -> int:
        return len(self.credit_G)

    def start(self) -> int:
        """The node of an utterance that has no token yet."""
        return _ROOT

    def step(self, node: int, token: int) -> tuple[int, float]:
        """(next node, bonus of this token; negative where credit is taken back). Blank: (node, 0)."""
        if token == BLANK_ID:
            return node, 0.0
        target = _ROOT
        stride = len(self.root_targets)
        if token < stride:
            key = node * stride + token
            arc = self.keys_A.searchsorted(key)
            target = int(self.targets_A[arc] if self.keys_A[arc] == key else self.root_targets[token])
        kept = self.pending_G[node] if self.begins_V[min(token, len(self.begins_V) - 1)] else 0.0
        return target, float(self.credit_G[target] - self.credit_G[node] + kept)

    def step_many(self, nodes_K: Array, tokens_K: Array) -> tuple[Array, Array]:
        """`step` of each pair. The two broadcast: (K, 1) nodes and (V,) tokens give all (K, V) continuations."""
        nodes_K, tokens_K = np.broadcast_arrays(nodes_K, tokens_K)
        targets_K = _follow(self.keys_A, self.targets_A, self.root_targets, nodes_K, tokens_K)
        begins_K = self.begins_V[np.minimum(tokens_K, len(self.begins_V) - 1)]
        kept_K = np.where(begins_K, self.pending_G[nodes_K], 0.0)
        bonuses_K = self.credit_G[targets_K] - self.credit_G[nodes_K] + kept_K
        blank_K = tokens_K == BLANK_ID
        return np.where(blank_K, nodes_K, targets_K), np.where(blank_K, 0.0, bonuses_K)

    def final(self, node: int) -> float:
        """The last bonus of an utterance: takes back what is unfinished, so it is never positive."""
        return float(self.pending_G[node] - self.credit_G[node])


def _check(sequences: Sequence[Tokens], scores: Sequence[float], what: str) -> None:
    """UserError for the first of `sequences` that cannot be boosted; `what` names them in the message."""
    if not sequences:
        return
    lengths_Q = np.fromiter(map(len, sequences), np.int64, len(sequences))
    if not lengths_Q.all():
        raise UserError(f"{what} {int(lengths_Q.argmin())} is empty; it needs at least one token")
    scores_Q = np.array(scores, dtype=float)
    wrong_Q = ~(np.isfinite(scores_Q) & (scores_Q >= 0))
    if wrong_Q.any():
        index = int(wrong_Q.argmax())
        raise UserError(f"{what} {index} has score {scores[index]}; a score is a finite number, 0 or more")
    flat = np.fromiter(chain.from_iterable(sequences), np.int64, int(lengths_Q.sum()))
    wrong = (flat <= BLANK_ID) | (flat >= MAX_TOKEN)
    if wrong.any():
        place = int(wrong.argmax())
        index = int(np.searchsorted(lengths_Q.cumsum(), place, side="right"))
        raise UserError(
            f"{what} {index} has token {flat[place]}; tokens are {BLANK_ID + 1} to {MAX_TOKEN - 1}, without blank"
        )


def _follow(keys_A: Array, targets_A: Array, root_targets: Array, nodes: Array, tokens: Array) -> Array:
    """Where each node goes with its token; tokens of no phrase share the last, empty entry of `root_targets`."""
    stride = len(root_targets)
    tokens = np.minimum(tokens, stride - 1)
    keys = nodes * np.int64(stride) + tokens
    arcs = keys_A.searchsorted(keys)
    return np.where(keys_A[arcs] == keys, targets_A[arcs], root_targets[tokens])


def _build(sequences: Sequence[Tokens], scores_Q: Array, free_Q: Array, begins_V: Array) -> BiasTrie:
    """Level by level, all phrases at once and in the order of their tokens: neighbours share a node or begin a new one.
    The nodes of a level need only shorter ones.

    All arcs of a node are those of its failure node unless it has its own, so a step never walks a failure chain. The
    root's arcs are left out everywhere, which keeps the table near the size of the trie.
    """
    lengths_Q = np.fromiter(map(len, sequences), np.int64, len(sequences))
    longest = int(lengths_Q.max(initial=0))
    tokens_QL: Array = np.zeros((len(sequences), longest), np.int64)
    inside_QL = np.arange(longest) < lengths_Q[:, None]
    tokens_QL[inside_QL] = np.fromiter(chain.from_iterable(sequences), np.int64, int(lengths_Q.sum()))
    if longest:
        order_Q = np.lexsort(tokens_QL.T[::-1])
        tokens_QL, inside_QL = tokens_QL[order_Q], inside_QL[order_Q]
        lengths_Q, scores_Q, free_Q = lengths_Q[order_Q], scores_Q[order_Q], free_Q[order_Q]
    stride = int(tokens_QL.max(initial=0)) + 2
    root_targets: Array = np.zeros(stride, np.int64)
    keys, targets = np.array([_NO_ARC]), np.array([_ROOT])
    fail: Array = np.zeros(1, np.int64)
    credit, pending, earned = np.zeros(1), np.zeros(1), np.zeros(1)
    level = np.array([_ROOT])
    held_Q: Array = np.zeros(len(sequences), np.int64)
    for depth in range(longest):
        active = np.flatnonzero(inside_QL[:, depth])
        held, read = held_Q[active], tokens_QL[active, depth]
        new: Array = np.ones(len(active), bool)
        new[1:] = (held[1:] != held[:-1]) | (read[1:] != read[:-1])
        firsts = np.flatnonzero(new)
        parents, tokens = held[firsts], read[firsts]
        own_keys = parents * stride + tokens
        nodes: Array = len(fail) + np.arange(len(firsts))
        held_Q[active] = len(fail) - 1 + new.cumsum()

        lent_Q = scores_Q[active] * np.maximum(0, depth + 1 - free_Q[active])
        ends = lengths_Q[active] == depth + 1
        promised = np.maximum.reduceat(lent_Q, firsts)
        worth = np.maximum.reduceat(np.where(ends, lent_Q, -np.inf), firsts)
        failures: Array
        if depth == 0:
            root_targets[tokens] = nodes
            failures = np.zeros(len(nodes), np.int64)
        else:
            failures = _follow(keys, targets, root_targets, fail[parents], tokens)
            keys, targets = _add_rows(keys, targets, stride, level, fail[level], own_keys, nodes)
        begins = begins_V[np.minimum(tokens, len(begins_V) - 1)]
        before = earned[parents] + np.where(begins, pending[parents], 0.0)
        gains = np.maximum(pending[failures], worth - before)
        fail, pending = np.concatenate([fail, failures]), np.concatenate([pending, gains])
        earned = np.concatenate([earned, before])
        credit = np.concatenate([credit, np.maximum(np.maximum(0.0, promised - before), gains)])
        level = nodes
    # The deepest nodes have no children, but a longest suffix may go on.
    no_arcs: Array = np.zeros(0, np.int64)
    keys, targets = _add_rows(keys, targets, stride, level, fail[level], no_arcs, no_arcs)
    return BiasTrie(keys, targets, root_targets, credit, pending, begins_V)


def _add_rows(
    keys_A: Array,
    targets_A: Array,
    stride: int,
    nodes: Array,
    failures: Array,
    own_keys: Array,
    own_targets: Array,
) -> tuple[Array, Array]:
    """Append the arcs of a level's `nodes`: their own, and those of their failure nodes (the root's left out)."""
    heirs = np.flatnonzero(failures)  # few: most nodes fail to the root
    nodes, failures = nodes[heirs], failures[heirs]
    first = keys_A.searchsorted(failures * stride)
    counts = keys_A.searchsorted((failures + 1) * stride) - first
    before = counts.cumsum() - counts
    arcs = np.repeat(first - before, counts) + np.arange(counts.sum())
    inherited = keys_A[arcs] + np.repeat((nodes - failures) * stride, counts)
    keys = np.concatenate([own_keys, inherited])
    order = keys.argsort(kind="stable")
    keys = keys[order]
    distinct: Array = np.ones(len(keys), bool)
    distinct[1:] = keys[1:] != keys[:-1]  # the first of equal keys: a node's own arc
    keys, chosen = keys[distinct], order[distinct]
    targets = np.concatenate([own_targets, targets_A[arcs]])[chosen]
    return (
        np.concatenate([keys_A[:-1], keys, [_NO_ARC]]),
        np.concatenate([targets_A[:-1], targets, [_ROOT]]),
    )
