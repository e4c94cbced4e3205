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

Shapes: G nodes (0 is the root, then level by level), A arcs, K hypotheses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.decoding.bias_groups import BiasGroup, Tokens, arranged
from pipeline.decoding.bias_machine import build_machine
from pipeline.decoding.token_lattice import BLANK_ID

_ROOT = 0
Array = np.ndarray
EVERY_TOKEN: np.ndarray = np.ones(1, bool)  # `begins_V` where any token may follow a phrase


@dataclass(frozen=True, eq=False)
class BiasTrie:
    """The machine. A state is one int, so it can stand in a hypothesis and be compared when paths merge.

    `tokens_A` (sorted) from a node's entry in `first_arc_G` to the next one lead to `targets_A`; a token without an arc
    leads to where the root goes with it: `root_targets`, whose last, empty entry stands for all tokens behind it.
    `credit_G` is lent while a node is held; of it, `pending_G` is earned for good when the next token begins a
    word (`begins_V`, whose last entry stands for all tokens behind it) or none comes.
    """

    first_arc_G: Array
    tokens_A: Array
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

        Prefixes share the nodes of their phrases where they can (`bias_groups.py`). Raises as `build`.
        """
        return cls(*build_machine(*arranged(groups, begins_V), begins_V), begins_V)

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
        first, last = self.first_arc_G[node : node + 2]
        arc = first + self.tokens_A[first:last].searchsorted(token)
        found = arc < last and self.tokens_A[arc] == token
        target = int(
            self.targets_A[arc] if found else self.root_targets[min(token, len(self.root_targets) - 1)]
        )
        kept = self.pending_G[node] if self.begins_V[min(token, len(self.begins_V) - 1)] else 0.0
        return target, float(self.credit_G[target] - self.credit_G[node] + kept)

    def row(self, node: int, num_tokens: int) -> tuple[tuple[int, ...], Array]:
        """`step` of all tokens: (their nodes, bonus_V)."""
        tokens_V = np.arange(num_tokens)
        nodes_V = self.root_targets[np.minimum(tokens_V, len(self.root_targets) - 1)]
        first, last = self.first_arc_G[node : node + 2]
        last = first + self.tokens_A[first:last].searchsorted(num_tokens)
        nodes_V[self.tokens_A[first:last]] = self.targets_A[first:last]
        kept_V = np.where(
            self.begins_V[np.minimum(tokens_V, len(self.begins_V) - 1)], self.pending_G[node], 0.0
        )
        bonus_V = self.credit_G[nodes_V] - self.credit_G[node] + kept_V
        nodes_V[BLANK_ID], bonus_V[BLANK_ID] = node, 0.0
        return tuple(nodes_V.tolist()), bonus_V

    def finals(self, nodes_K: Array) -> Array:
        """The last bonus of utterances that end at these nodes: takes back what is unfinished; never positive."""
        return self.pending_G[nodes_K] - self.credit_G[nodes_K]

    def final(self, node: int) -> float:
        """`finals` of one node."""
        return float(self.finals(np.array(node)))

    def unfinished(self, node: int) -> int | None:
        """The node itself where it holds credit of a phrase that is not finished, else None."""
        return node if self.credit_G[node] > self.pending_G[node] else None
