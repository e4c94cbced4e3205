"""Bias phrases and a lexicon in one search, as the packed recogniser uses them."""

from dataclasses import dataclass

import numpy as np

from pipeline.decoding.biasing import BiasTrie
from pipeline.decoding.lexicon import Lexicon


@dataclass(frozen=True, eq=False)
class BiasedLexicon:
    """A bias and a lexicon side by side, for one search: nodes are pairs, bonuses add up."""

    bias: BiasTrie
    lexicon: Lexicon

    def start(self) -> tuple[int, int]:
        return self.bias.start(), self.lexicon.start()

    def step(self, node: tuple[int, int], token: int) -> tuple[tuple[int, int], float]:
        biased, bonus = self.bias.step(node[0], token)
        known, cost = self.lexicon.step(node[1], token)
        return (biased, known), bonus + cost

    def row(self, node: tuple[int, int], num_tokens: int) -> tuple[tuple[tuple[int, int], ...], np.ndarray]:
        """`step` of all tokens: (their nodes, bonus_V)."""
        biased_V, bonus_V = self.bias.row(node[0], num_tokens)
        known_V, cost_V = self.lexicon.row(node[1], num_tokens)
        return tuple(zip(biased_V, known_V, strict=True)), bonus_V + cost_V

    def final(self, node: tuple[int, int]) -> float:
        return self.bias.final(node[0]) + self.lexicon.final(node[1])

    def unfinished(self, node: tuple[int, int]) -> int | None:
        return self.bias.unfinished(node[0])
