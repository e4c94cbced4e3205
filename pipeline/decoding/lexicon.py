"""The words that a recogniser knows, as a trie over tokens: a word outside costs the search so many nats.

A transducer with two tokens of memory spells: what it writes instead of a word that it half heard is mostly no word at
all. A lexicon is what hybrid recognisers always had (Mohri, Pereira & Riley 2002, "Weighted finite-state transducers
in speech recognition"); here it is soft, so that names that nobody listed can still be written.

    cost(token sequence) = penalty * number of its words whose tokens spell no word of the lexicon

A word begins at a token that begins one (`begins_V`) and at the first token of all. The cost is due as soon as it is
certain: with the first token that leaves the trie, or behind a word that was not spelled to its end.

Nodes: 0 is the root, before the first token; the last one stands for every unknown word. Shapes: G nodes, A arcs in
the order of their nodes, V tokens, X states of a search.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.corpus.tokenizer import SPACE, Tokenizer
from pipeline.decoding.token_lattice import BLANK_ID
from pipeline.errors import UserError

_ROOT = 0
Array = np.ndarray


@dataclass(frozen=True)
class LexiconConfig:
    """`max_words`: the most frequent ones of the training transcripts; `oov_penalty`: nats that others cost."""

    max_words: int
    oov_penalty: float


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A walk over nodes as `decoding.search.Bias`, all bonuses 0 or -`penalty`. `first_arc_G` has one entry more than
    there are nodes; `complete_G`: a word may end here at no cost; `root_targets_V`: where a word's first token leads;
    `words`: as texts, where they were given as texts.
    """

    first_arc_G: Array
    tokens_A: Array
    targets_A: Array
    complete_G: Array
    root_targets_V: Array
    begins_V: Array
    penalty: float
    words: frozenset[str] = frozenset()

    @classmethod
    def build(cls, spellings: Iterable[Sequence[int]], begins_V: Array, penalty: float) -> "Lexicon":
        """From the token ids of each word. Raises UserError for a penalty that is negative or not finite, and for a
        word that is empty, has a blank, or does not begin as a word or begins another one within.
        """
        if not (np.isfinite(penalty) and penalty >= 0):
            raise UserError(f"oov_penalty: {penalty} must be a finite number of nats, 0 or more")
        children: list[dict[int, int]] = [{}]
        complete = [True]
        for tokens in spellings:
            if [bool(begins_V[token]) for token in tokens] != [True] + [False] * (len(tokens) - 1) or (
                BLANK_ID in tokens
            ):
                raise UserError(
                    f"lexicon: tokens {list(tokens)} are no word; its first one alone begins a word"
                )
            node = _ROOT
            for token in tokens:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                    complete.append(False)
                node = children[node][token]
            complete[node] = True
        unknown = len(children)
        root_targets_V = np.full(len(begins_V), unknown)
        root_targets_V[list(children[_ROOT])] = list(children[_ROOT].values())
        children[_ROOT] = {}  # in `root_targets_V`, from wherever a word begins
        arcs = [pair for arcs in children for pair in sorted(arcs.items())]
        tokens_A, targets_A = np.array(arcs, np.int64).reshape(-1, 2).T
        first_arc_G = np.cumsum([0, *map(len, children), 0])
        complete_G = np.array([*complete, True])
        return cls(
            first_arc_G,
            tokens_A.copy(),
            targets_A.copy(),
            complete_G,
            root_targets_V,
            begins_V,
            float(penalty),
        )

    @classmethod
    def free(cls, num_tokens: int) -> "Lexicon":
        """Knows no word and costs nothing: its nodes tell apart only what the last two tokens do."""
        return cls.build([], np.ones(num_tokens, bool), 0.0)

    @property
    def unknown(self) -> int:
        """The node of every unknown word."""
        return len(self.complete_G) - 1

    def start(self) -> int:
        """The node of an utterance that has no token yet."""
        return _ROOT

    def step(self, node: int, token: int) -> tuple[int, float]:
        """(next node, bonus of this token). Blank: (node, 0)."""
        targets_1V, bonuses_1V = self.rows(np.array([node]))
        return int(targets_1V[0, token]), float(bonuses_1V[0, token])

    def rows(self, nodes_X: Array) -> tuple[Array, Array]:
        """(targets_XV, bonuses_XV): where every token leads from each node, and what it costs."""
        left_X1 = np.where(self.complete_G[nodes_X], 0.0, -self.penalty)[:, None]
        strays_X1 = np.where(nodes_X == self.unknown, 0.0, -self.penalty)[:, None]
        begun_V = np.where(self.root_targets_V == self.unknown, -self.penalty, 0.0)
        targets_XV = np.tile(np.where(self.begins_V, self.root_targets_V, self.unknown), (len(nodes_X), 1))
        bonuses_XV = np.where(self.begins_V, left_X1 + begun_V, strays_X1)
        first_X = self.first_arc_G[nodes_X]
        counts_X = self.first_arc_G[nodes_X + 1] - first_X
        rows_Y = np.repeat(np.arange(len(nodes_X)), counts_X)
        arcs_Y = np.arange(len(rows_Y)) + np.repeat(first_X - (counts_X.cumsum() - counts_X), counts_X)
        targets_XV[rows_Y, self.tokens_A[arcs_Y]] = self.targets_A[arcs_Y]
        bonuses_XV[rows_Y, self.tokens_A[arcs_Y]] = 0.0
        targets_XV[:, BLANK_ID], bonuses_XV[:, BLANK_ID] = nodes_X, 0.0
        return targets_XV, bonuses_XV

    def row(self, node: int, num_tokens: int) -> tuple[tuple[int, ...], Array]:
        """`step` of all tokens: (their nodes, bonus_V)."""
        targets_1V, bonuses_1V = self.rows(np.array([node]))
        return tuple(targets_1V[0].tolist()), bonuses_1V[0]

    def final(self, node: int) -> float:
        """The last bonus of an utterance: a word that the end cut off is unknown."""
        return 0.0 if self.complete_G[node] else -self.penalty


def lexicon_of(words: Sequence[str], tokenizer: Tokenizer, penalty: float) -> Lexicon:
    """The lexicon of texts without spaces; one with a letter that the tokenizer lacks can never be written and stays
    out. Raises as `Lexicon.build`.
    """
    spellings = [tokens for tokens in tokenizer.encode_all(words) if tokenizer.unknown_id not in tokens]
    return replace(Lexicon.build(spellings, word_begins(tokenizer), penalty), words=frozenset(words))


def word_begins(tokenizer: Tokenizer) -> Array:
    """Which tokens begin a word, (V,)."""
    return np.array([piece.startswith(SPACE) for piece, _ in tokenizer.pieces])
