"""Slow, obvious twins of the losses: every alignment by name, one utterance and one node at a time."""

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor


def one_per_frame_paths(num_frames: int, num_labels: int) -> list[tuple[int, ...]]:
    """Every alignment as a tuple of 0 (blank) and 1 (next label), one per frame."""
    return [path for path in itertools.product((0, 1), repeat=num_frames) if sum(path) == num_labels]


def regular_paths(num_frames: int, num_labels: int) -> list[tuple[int, ...]]:
    """Every alignment as 0 (blank: next frame) and 1 (next label, same frame); the last symbol is a blank."""
    symbols = itertools.product((0, 1), repeat=num_frames + num_labels)
    return [path for path in symbols if sum(path) == num_labels and path[-1] == 0]


def path_score(path: tuple[int, ...], log_blank_TU: Tensor, log_label_TU: Tensor, topology: str) -> Tensor:
    t = u = 0
    total = log_blank_TU.new_zeros(())
    for symbol in path:
        total = total + (log_label_TU if symbol else log_blank_TU)[t, u]
        u += symbol
        t += 1 if topology == "one_per_frame" else 1 - symbol
    return total


def enumerated_loss(log_blank_TU: Tensor, log_label_TU: Tensor, T: int, labels: int, topology: str) -> Tensor:
    """-log of the sum over all alignments of one utterance."""
    paths = (one_per_frame_paths if topology == "one_per_frame" else regular_paths)(T, labels)
    return -torch.stack([path_score(p, log_blank_TU, log_label_TU, topology) for p in paths]).logsumexp(0)


def enumerated_alignment(log_blank_TU: Tensor, log_label_TU: Tensor, T: int, labels: int) -> list[int]:
    """Labels emitted before each frame, on the best of all alignments."""
    paths = one_per_frame_paths(T, labels)
    best = max(paths, key=lambda p: path_score(p, log_blank_TU, log_label_TU, "one_per_frame").item())
    return [sum(best[:t]) for t in range(T)]


def looped_loss(log_blank_TU: Tensor, log_label_TU: Tensor, T: int, labels: int) -> float:
    """Hand-written forward recursion of the one-symbol-per-frame topology on plain numbers."""
    alpha = {(0, 0): 0.0}
    for t in range(T):
        for u in range(labels + 1):
            if (t, u) not in alpha:
                continue
            arcs = [((t + 1, u), log_blank_TU[t, u].item())]
            if u < labels:
                arcs.append(((t + 1, u + 1), log_label_TU[t, u].item()))
            for node, score in arcs:
                score += alpha[t, u]
                old = alpha.get(node, -math.inf)
                high, low = max(old, score), min(old, score)
                alpha[node] = high + math.log1p(math.exp(low - high))
    return -alpha[T, labels]


def joined_log_probs(
    encoded_BTD: Tensor, predicted_BUD: Tensor, weight_VD: Tensor, bias_V: Tensor, tokens_BU: Tensor
) -> tuple[Tensor, Tensor]:
    """The joiner as its formula says, by autograd; the label column of the last node repeats the blank."""
    logits_BTUV = torch.tanh(encoded_BTD[:, :, None] + predicted_BUD[:, None]) @ weight_VD.T + bias_V
    log_probs_BTUV = logits_BTUV.log_softmax(-1)
    labels = torch.nn.functional.pad(tokens_BU, (0, 1))
    log_label = torch.stack([log_probs_BTUV[b, :, u, labels[b, u]] for b, u in _indices(labels)])
    B, T, U, _ = log_probs_BTUV.shape
    return log_probs_BTUV[..., 0], log_label.view(B, U, T).transpose(1, 2)


def _indices(table_BU: Tensor) -> list[tuple[int, int]]:
    return list(itertools.product(range(table_BU.shape[0]), range(table_BU.shape[1])))


def looped_lattice_kl(
    student: tuple,
    teacher: tuple,
    T: int,
    labels: int,
    floor: float = 1e-6,
    unvisited: Iterable[tuple[int, int]] = (),
) -> float:
    """student, teacher: (log_blank_TU, log_label_TU) of one utterance; mean over the nodes on paths."""
    total, nodes = 0.0, set()
    for path in one_per_frame_paths(T, labels):
        nodes |= {(t, sum(path[:t])) for t in range(T)}
    nodes -= set(unvisited)
    for t, u in nodes:
        kept = (0, 1) if u < labels else (0,)
        p = [math.exp(teacher[k][t, u].item()) for k in kept]
        q = [math.exp(student[k][t, u].item()) for k in kept]
        p.append(max(1 - sum(p), floor))
        q.append(max(1 - sum(q), floor))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / max(len(nodes), 1)


def looped_best_path_kl(
    logits_TV: Tensor, ids_TK: Tensor, log_probs_TK: Tensor, T: int, floor: float = 1e-6
) -> float:
    total = 0.0
    for t in range(T):
        student = logits_TV[t].softmax(-1)
        p = [math.exp(score) for score in log_probs_TK[t].tolist()]
        q = [student[token].item() for token in ids_TK[t].tolist()]
        p.append(max(1 - sum(p), floor))
        q.append(max(1 - sum(q), floor))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / max(T, 1)
