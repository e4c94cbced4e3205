"""Slow, obvious twin of the word alignment: the textbook dynamic programme."""


def edit_distance(reference: list[str], hypothesis: list[str]) -> int:
    """Fewest substitutions, deletions and insertions that turn one list into the other."""
    costs = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, start=1):
        previous, costs[0] = costs[0], i
        for j, other in enumerate(hypothesis, start=1):
            previous, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, previous + (word != other))
    return costs[-1]
