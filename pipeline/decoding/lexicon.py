"""The words that a recogniser knows and how they follow each other, as a walk over tokens that the search takes.

A transducer with two tokens of memory spells: what it writes instead of a word that it half heard is mostly no word at
all, or none that fits there. A lexicon and a grammar are what hybrid recognisers always had (Mohri, Pereira & Riley
2002, "Weighted finite-state transducers in speech recognition"); here both are soft, so that names that nobody listed
can still be written:

    bonus(words) = sum_w [scale log P(w | words before) + word_bonus - (oov_penalty if w is unknown)] + scale log P(end)

with P of a `ClassNgram`, where an unknown word is one of the class of unknown words. A word begins at a token that
begins one (`begins_V`) and at the first token of all. What its tokens cost is due as soon as it is certain (weight
pushing, or look-ahead, Ortmanns et al. 1996): after k tokens, scale log of the probability of all words that begin so.

A node is history · G + place: the place in the trie of spellings, and the classes of the words before. Place 0 is the
root, before the first token; the last place is that of every unknown word. Shapes: G places, A arcs in the order of
their places, V tokens, H histories, K classes, W words, X states of a search.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

import numpy as np

from pipeline.corpus.tokenizer import SPACE, Tokenizer
from pipeline.decoding.token_lattice import BLANK_ID
from pipeline.errors import UserError
from pipeline.language.class_ngram import BOUNDARY, UNKNOWN, ClassNgram

_ROOT = 0
_NEVER = 1e-30  # probability of what no word continues
Array = np.ndarray


@dataclass(frozen=True)
class LexiconWeights:
    """`scale`: of the grammar's log probability; nats: `word_bonus` earned by every word, `oov_penalty` that an unknown
    one costs beside.
    """

    scale: float
    word_bonus: float
    oov_penalty: float

    def __post_init__(self):
        for name, least in {"scale": 0.0, "word_bonus": -np.inf, "oov_penalty": 0.0}.items():
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= least):
                raise UserError(f"{name}: {value} must be a finite number" + ", 0 or more" * (least == 0))


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A walk over nodes as `decoding.search.Bias`. Tables are float32, sums float64.

    `first_arc_G` has one entry more than there are places; `class_G`, `emission_G`: class and bonus within it of the
    word that ends here, UNKNOWN and 0 where none does; `root_targets_V`: where a word's first token leads; `ahead_HG`:
    bonus for being here in a word; `ends_HK`: for a word of a class, or for the end; `newest_H`, `next_KK`: as of the
    ngram; `words`: as texts, where they were given as texts.
    """

    first_arc_G: Array
    tokens_A: Array
    targets_A: Array
    class_G: Array
    emission_G: Array
    root_targets_V: Array
    begins_V: Array
    ahead_HG: Array
    ends_HK: Array
    newest_H: Array
    next_KK: Array
    weights: LexiconWeights
    ngram: ClassNgram

    @classmethod
    def build(
        cls, spellings: Sequence[Sequence[int]], begins_V: Array, ngram: ClassNgram, weights: LexiconWeights
    ) -> "Lexicon":
        """From the token ids of each of the ngram's words. Raises UserError for a word that is empty, has a blank, or
        does not begin as a word or begins another one within, and for two that are spelled alike.
        """
        order = sorted(range(len(spellings)), key=lambda w: spellings[w])
        children, word_G, below_G2 = _trie(spellings, order, begins_V)
        unknown = len(children)
        root_targets_V = np.full(len(begins_V), unknown)
        root_targets_V[list(children[_ROOT])] = list(children[_ROOT].values())
        children[_ROOT] = {}  # in `root_targets_V`, from wherever a word begins
        arcs = [pair for each in children for pair in sorted(each.items())]
        tokens_A, targets_A = np.array(arcs, np.int64).reshape(-1, 2).T
        ends_HK = weights.scale * np.log(ngram.probability_HK)
        ends_HK[:, UNKNOWN] -= weights.oov_penalty
        ahead_HG = _ahead(ngram, order, below_G2, weights.scale)
        ahead_HG[:, unknown] = ends_HK[:, UNKNOWN]
        ends_HK[:, UNKNOWN:] += weights.word_bonus
        class_G = np.where(word_G >= 0, np.append(ngram.class_W, 0)[word_G], UNKNOWN)
        emission_G = np.where(
            word_G >= 0, np.append(weights.scale * np.log(ngram.emission_W), 0.0)[word_G], 0.0
        )
        return cls(
            np.cumsum([0, *map(len, children), 0]),
            tokens_A.copy(),
            targets_A.copy(),
            class_G,
            emission_G.astype(np.float32),
            root_targets_V,
            begins_V,
            ahead_HG,
            ends_HK.astype(np.float32),
            ngram.newest_H,
            ngram.next_KK,
            weights,
            ngram,
        )

    @classmethod
    def free(cls, num_tokens: int) -> "Lexicon":
        """Knows no word and costs nothing: its nodes tell apart only what the last two tokens do."""
        weights = LexiconWeights(0.0, 0.0, 0.0)
        found = cls.build([], np.ones(num_tokens, bool), ClassNgram.silent(), weights)
        return replace(found, next_KK=np.zeros_like(found.next_KK))

    @property
    def num_places(self) -> int:
        return len(self.class_G)

    @property
    def unknown(self) -> int:
        """The place of every unknown word."""
        return self.num_places - 1

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(self.ngram.words)

    @cached_property
    def begun_HV(self) -> Array:
        """`ahead_HG` of the places where each token's words begin."""
        return self.ahead_HG[:, self.root_targets_V]

    def start(self) -> int:
        """The node of an utterance that has no token yet."""
        return BOUNDARY * self.num_places + _ROOT

    def step(self, node: int, token: int) -> tuple[int, float]:
        """(next node, bonus of this token). Blank: (node, 0)."""
        targets_1V, bonuses_1V = self.rows(np.array([node]))
        return int(targets_1V[0, token]), float(bonuses_1V[0, token])

    def rows(self, nodes_X: Array) -> tuple[Array, Array]:
        """(targets_XV, bonuses_XV): where every token leads from each node, and what it earns."""
        history_X, place_X = np.divmod(nodes_X, self.num_places)
        here_X = self.ahead_HG[history_X, place_X].astype(float)
        left_X, after_X = self._word_ends(history_X, place_X)
        begun_XV = left_X[:, None] + self.begun_HV[after_X]
        strays_X = np.where(place_X == self.unknown, 0.0, self.ahead_HG[history_X, self.unknown] - here_X)
        bonuses_XV = np.where(self.begins_V, begun_XV, strays_X[:, None])
        begun_XV = after_X[:, None] * self.num_places + self.root_targets_V
        strayed_X1 = (history_X * self.num_places + self.unknown)[:, None]
        targets_XV = np.where(self.begins_V, begun_XV, strayed_X1)
        first_X = self.first_arc_G[place_X]
        counts_X = self.first_arc_G[place_X + 1] - first_X
        rows_Y = np.repeat(np.arange(len(nodes_X)), counts_X)
        arcs_Y = np.arange(len(rows_Y)) + np.repeat(first_X - (counts_X.cumsum() - counts_X), counts_X)
        tokens_Y, places_Y, history_Y = self.tokens_A[arcs_Y], self.targets_A[arcs_Y], history_X[rows_Y]
        targets_XV[rows_Y, tokens_Y] = history_Y * self.num_places + places_Y
        bonuses_XV[rows_Y, tokens_Y] = self.ahead_HG[history_Y, places_Y] - here_X[rows_Y]
        targets_XV[:, BLANK_ID], bonuses_XV[:, BLANK_ID] = nodes_X, 0.0
        return targets_XV, bonuses_XV

    def row(self, node: int, num_tokens: int) -> tuple[tuple[int, ...], Array]:
        """`step` of all tokens: (their nodes, bonus_V)."""
        targets_1V, bonuses_1V = self.rows(np.array([node]))
        return tuple(targets_1V[0].tolist()), bonuses_1V[0]

    def finals(self, nodes_X: Array) -> Array:
        """The last bonus of utterances that end at these nodes: a word that the end cut off is unknown."""
        left_X, after_X = self._word_ends(*np.divmod(nodes_X, self.num_places))
        return left_X + self.ends_HK[after_X, BOUNDARY]

    def final(self, node: int) -> float:
        """`finals` of one node."""
        return float(self.finals(np.array([node]))[0])

    def unfinished(self, node: int) -> None:
        """Nothing: what a word earns before its end it has earned."""

    def earned(self, sentences: Sequence[Sequence[int]]) -> list[float]:
        """The sum of the bonuses of each token sequence, its end among them."""
        nodes_X, total_X = np.full(len(sentences), self.start()), np.zeros(len(sentences))
        tokens_XU = (
            np.array(list(zip_longest(*sentences, fillvalue=BLANK_ID)), int).reshape(-1, len(sentences)).T
        )
        for tokens_X in tokens_XU.T:
            targets_XV, bonuses_XV = self.rows(nodes_X)
            rows_X = np.arange(len(sentences))
            nodes_X, total_X = targets_XV[rows_X, tokens_X], total_X + bonuses_XV[rows_X, tokens_X]
        return (total_X + self.finals(nodes_X)).tolist()

    def _word_ends(self, history_X: Array, place_X: Array) -> tuple[Array, Array]:
        """(bonus still due when the word at each place ends, the histories then)."""
        class_X = self.class_G[place_X]
        word_X = self.ends_HK[history_X, class_X].astype(float) + self.emission_G[place_X]
        left_X = np.where(place_X == _ROOT, 0.0, word_X - self.ahead_HG[history_X, place_X])
        after_X = self.next_KK[self.newest_H[history_X], class_X]
        return left_X, np.where(place_X == _ROOT, history_X, after_X)


def lexicon_of(ngram: ClassNgram, tokenizer: Tokenizer, weights: LexiconWeights) -> Lexicon:
    """The lexicon of texts without spaces. Raises UserError for one with a letter that the tokenizer lacks."""
    spellings = tokenizer.encode_all(ngram.words)
    for word, tokens in zip(ngram.words, spellings, strict=True):
        if tokenizer.unknown_id in tokens:
            raise UserError(f"lexicon: {word!r} has a letter that the tokenizer lacks")
    return Lexicon.build(spellings, word_begins(tokenizer), ngram, weights)


def word_begins(tokenizer: Tokenizer) -> Array:
    """Which tokens begin a word, (V,)."""
    return np.array([piece.startswith(SPACE) for piece, _ in tokenizer.pieces])


def _trie(
    spellings: Sequence[Sequence[int]], order: Sequence[int], begins_V: Array
) -> tuple[list[dict[int, int]], Array, Array]:
    """(for each place where its tokens lead, the word that ends there or -1, which of the words in `order`, that of
    their spellings, begin so, from and to); the last place is that of unknown words. Raises as `Lexicon.build`.
    """
    children: list[dict[int, int]] = [{}]
    words, below = [-1], [[0, 0]]
    for n, w in enumerate(order):
        tokens, place = spellings[w], _ROOT
        if [bool(begins_V[token]) for token in tokens] != [True] + [False] * (len(tokens) - 1) or (
            BLANK_ID in tokens
        ):
            raise UserError(f"lexicon: tokens {list(tokens)} are no word; its first one alone begins a word")
        for token in tokens:
            if token not in children[place]:
                children[place][token] = len(children)
                children.append({})
                words.append(-1)
                below.append([n, n])
            place = children[place][token]
            below[place][1] = n + 1
        if words[place] >= 0:
            raise UserError(f"lexicon: two words have the tokens {list(tokens)}")
        words[place] = w
    return children, np.array([*words, -1]), np.array([*below, [0, 0]])


def _ahead(ngram: ClassNgram, order: Sequence[int], below_G2: Array, scale: float) -> Array:
    """scale log P(a word that goes on from this place | history), (H, G) float32; 0 at the root.

    Words in `order` that begin with a place's tokens stand side by side, so that sums are differences of running sums.
    """
    ahead_HG = np.empty((len(ngram.newest_H), len(below_G2)), np.float32)
    class_W, emission_W = ngram.class_W[list(order)], ngram.emission_W[list(order)]
    for h, probability_K in enumerate(ngram.probability_HK):
        running = np.concatenate([[0.0], np.cumsum(probability_K[class_W] * emission_W)])
        ahead_HG[h] = scale * np.log(np.maximum(running[below_G2[:, 1]] - running[below_G2[:, 0]], _NEVER))
    ahead_HG[:, _ROOT] = 0.0
    return ahead_HG
