"""The Aho-Corasick machine of decoding/biasing.py, compiled, so that a list may change before every utterance.

Nodes are numbered level by level, and on a level in the order of their tokens from the root on. So a node comes after
its parent and after its failure node (its longest suffix that is a node too), and children are neighbours, in the
order of their tokens: one pass over the nodes suffices.

Phrases that count after several prefixes are there once, behind a gate: a node beside the root that no token leads to
and that is the failure node of the last node of each of these prefixes.

Shapes: Q phrases, X tokens of all of them, one phrase after the other; G nodes (0 is the root, then the gates), A arcs.
"""

import numpy as np
from numba import njit

NO_TOKEN = np.iinfo(np.int32).max
_ROOT = 0

compiled = njit(cache=True)  # without fast maths: what is lent must be taken back to the last bit


@compiled
def build_machine(tokens_X, lengths_Q, scores_Q, free_Q, behind_Q, opens_Q, begins_V):
    """(first_arc_G, tokens_A, targets_A, root_targets, credit_G, pending_G) of the `BiasTrie` of Q checked phrases.

    `scores_Q`: nats a token; the first `free_Q` tokens of a phrase, its activation prefix, earn nothing. `behind_Q`:
    the gate (1, 2, …) behind which a phrase stands; `opens_Q`: the one that it opens, a prefix then; 0: none.
    """
    stride = np.int64(2)  # a plain 2 is a type of its own: everything would be compiled twice
    for token in tokens_X:
        stride = max(stride, token + 2)
    parents_G, tokens_G, promised_G, worth_G, opens_G = _nodes(
        tokens_X, lengths_Q, scores_Q, free_Q, behind_Q, opens_Q, stride
    )
    first_arc_G, tokens_A, targets_A, root_targets, failures_G = _arcs(parents_G, tokens_G, opens_G, stride)
    credit_G, pending_G = _bonuses(parents_G, tokens_G, failures_G, promised_G, worth_G, begins_V)
    return first_arc_G, tokens_A, targets_A, root_targets, credit_G, pending_G


@compiled
def _nodes(tokens_X, lengths_Q, scores_Q, free_Q, behind_Q, opens_Q, stride):
    """(parents_G, tokens_G, promised_G, worth_G, opens_G).

    `promised_G`: the largest share, in nats, that the tokens up to a node have in the worth of a phrase through it;
    `worth_G`: the same of phrases that end there, -inf where none does; `opens_G`: the gate that a prefix which ends
    there opens, or 0.
    """
    starts_Q, num_gates = lengths_Q.cumsum() - lengths_Q, 0
    for gate in opens_Q:
        num_gates = max(num_gates, gate)
    most = len(tokens_X) + 1 + num_gates
    parents_G, tokens_G, opens_G = (
        np.zeros(most, np.int64),
        np.zeros(most, np.int64),
        np.zeros(most, np.int64),
    )
    promised_G, worth_G = np.zeros(most), np.full(most, -np.inf)
    num_nodes, depth = 1 + num_gates, 0
    held_Q, active_Q = behind_Q.copy(), np.arange(len(lengths_Q))
    while len(active_Q):
        keys_Q = held_Q[active_Q] * stride + tokens_X[starts_Q[active_Q] + depth]
        order_Q = np.argsort(keys_Q, kind="mergesort")
        active_Q, keys_Q = active_Q[order_Q], keys_Q[order_Q]
        depth += 1
        for place, q in enumerate(active_Q):
            if place == 0 or keys_Q[place] != keys_Q[place - 1]:
                parents_G[num_nodes], tokens_G[num_nodes] = divmod(keys_Q[place], stride)
                num_nodes += 1
            node = held_Q[q] = num_nodes - 1
            lent = scores_Q[q] * max(0, depth - free_Q[q])
            promised_G[node] = max(promised_G[node], lent)
            if lengths_Q[q] == depth:
                worth_G[node] = max(worth_G[node], lent)
                opens_G[node] = max(opens_G[node], opens_Q[q])
        active_Q = active_Q[lengths_Q[active_Q] > depth]
    return (
        parents_G[:num_nodes],
        tokens_G[:num_nodes],
        promised_G[:num_nodes],
        worth_G[:num_nodes],
        opens_G[:num_nodes],
    )


@compiled
def _arcs(parents_G, tokens_G, opens_G, stride):
    """(first_arc_G, with one entry more than there are nodes; tokens_A, targets_A, root_targets, failures_G).

    All arcs of a node are those of its failure node unless it has its own, so a step never walks a failure chain. The
    root's arcs are left out everywhere, which keeps the table near the size of the trie.
    """
    num_nodes, num_arcs, child = len(parents_G), 0, 1
    root_targets, failures_G = np.zeros(stride, np.int32), np.zeros(num_nodes, np.int64)
    while child < num_nodes and parents_G[child] == _ROOT:
        root_targets[tokens_G[child]] = child
        child += 1
    root_targets[0] = _ROOT  # gates have blank for a token, which leads nowhere
    tokens_A, targets_A = np.empty(2 * num_nodes, np.int32), np.empty(2 * num_nodes, np.int32)
    first_arc_G = np.zeros(num_nodes + 1, np.int32)
    for node in range(1, num_nodes):
        if opens_G[node]:
            failures_G[node] = opens_G[node]
        failure = failures_G[node]
        arc, arc_end = np.int64(first_arc_G[failure]), np.int64(first_arc_G[failure + 1])
        child_end = child
        while child_end < num_nodes and parents_G[child_end] == node:
            child_end += 1
        most = num_arcs + child_end - child + arc_end - arc
        if most > len(tokens_A):
            spare_A = np.empty(most, np.int32)
            tokens_A, targets_A = np.append(tokens_A, spare_A), np.append(targets_A, spare_A)
        while child < child_end or arc < arc_end:
            own = tokens_G[child] if child < child_end else NO_TOKEN
            inherited = np.int64(tokens_A[arc]) if arc < arc_end else NO_TOKEN
            tokens_A[num_arcs] = min(own, inherited)
            if own > inherited:
                targets_A[num_arcs] = targets_A[arc]
            else:
                targets_A[num_arcs] = child
                failures_G[child] = targets_A[arc] if own == inherited else root_targets[tokens_G[child]]
                child += 1
            if own >= inherited:
                arc += 1
            num_arcs += 1
        first_arc_G[node + 1] = num_arcs
    return first_arc_G, tokens_A[:num_arcs].copy(), targets_A[:num_arcs].copy(), root_targets, failures_G


@compiled
def _bonuses(parents_G, tokens_G, failures_G, promised_G, worth_G, begins_V):
    """(credit_G, pending_G) in nats, after the definition in decoding/biasing.py."""
    num_nodes = len(parents_G)
    credit_G, pending_G, earned_G = np.zeros(num_nodes), np.zeros(num_nodes), np.zeros(num_nodes)
    for node in range(1, num_nodes):
        parent = parents_G[node]
        earned_G[node] = earned_G[parent]
        if begins_V[min(tokens_G[node], len(begins_V) - 1)]:
            earned_G[node] += pending_G[parent]
        pending_G[node] = max(pending_G[failures_G[node]], worth_G[node] - earned_G[node])
        credit_G[node] = max(0.0, promised_G[node] - earned_G[node], pending_G[node])
    return credit_G, pending_G
