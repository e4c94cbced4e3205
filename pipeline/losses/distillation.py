"""Distillation of a transducer: over the whole lattice in three classes, or along the teacher's best path
in top-k.

Both are Kullback-Leibler divergences KL(teacher || student) per utterance (loss_B), averaged over the nodes
they visit, so that their weight does not depend on the length of an utterance. `transducer_loss` is a sum
over an utterance: a weight near its number of frames (20 to 50) puts the two on one scale.

Teacher scores may be float16; everything is computed in float32 (float64 for a float64 student). Gradients
go to the student only. Remainders are clamped at 1e-6, so a divergence of equal distributions is exactly 0.

Shapes: B utterances, T frames, U labels + 1, V tokens (blank = 0), K kept tokens of the teacher.
Source of the lattice loss: Panchapagesan et al. 2021 (arXiv 2011.06110), collapsed distributions.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import linear

from pipeline.losses.rnnt import lattice_nodes

MIN_REMAINDER = 1e-6


def lattice_kl(
    log_blank_BTU: Tensor,
    log_label_BTU: Tensor,
    teacher_log_blank_BTU: Tensor,
    teacher_log_label_BTU: Tensor,
    frame_lengths_B: Tensor,
    token_lengths_B: Tensor,
) -> Tensor:
    """KL over {blank, next label, any other token} at every node that lies on a path, mean over nodes
    (loss_B, nats).

    The last node of an utterance has no next label: two classes there. Nodes are those of `lattice_nodes`,
    so both sides may come from `fused_joiner` with lengths; an utterance that is too short has none and
    gives 0. So do nodes that the teacher did not visit, 0 in both of its scores: told at another tempo, an utterance
    has paths that it did not have before.
    """
    num_frames, num_nodes = log_blank_BTU.shape[1:]
    nodes_BTU = lattice_nodes(frame_lengths_B, token_lengths_B, num_frames, num_nodes)
    u_U = torch.arange(num_nodes, device=nodes_BTU.device)
    last_BU = u_U >= token_lengths_B[:, None]
    nodes_BTU &= (teacher_log_blank_BTU != 0) | (teacher_log_label_BTU != 0) | last_BU[:, None]
    labels_BTU = nodes_BTU & ~last_BU[:, None]
    dtype = torch.promote_types(log_blank_BTU.dtype, torch.float32)

    def classes(log_blank: Tensor, log_label: Tensor) -> Tensor:
        # Off the paths any distribution will do; put in before exp, it keeps garbage out of the gradients.
        log_blank = torch.where(nodes_BTU, log_blank.to(dtype), -math.log(3))
        log_label = torch.where(nodes_BTU, log_label.to(dtype), -math.log(3))
        label = torch.where(labels_BTU, log_label.exp(), 0.0)
        remainder = (1.0 - log_blank.exp() - label).clamp_min(MIN_REMAINDER)
        return torch.stack([log_blank, log_label, remainder.log()])

    student = classes(log_blank_BTU, log_label_BTU)
    teacher = classes(teacher_log_blank_BTU, teacher_log_label_BTU).detach()
    kl = teacher.exp() * (teacher - student)
    visited = torch.stack([nodes_BTU, labels_BTU, nodes_BTU])
    total_B = (kl * visited).sum((0, 2, 3))
    return total_B / nodes_BTU.sum((1, 2)).clamp_min(1)


def best_path_kl(
    logits_BTV: Tensor, topk_ids_BTK: Tensor, topk_log_probs_BTK: Tensor, frame_lengths_B: Tensor
) -> Tensor:
    """KL over the teacher's top-k tokens and one class for the rest, mean over frames (loss_B, nats).

    logits_BTV are the student's at the nodes of the teacher's path (`best_alignment`), one node per frame.
    Values in padding do not matter; an utterance without frames gives 0.
    """
    dtype = torch.promote_types(logits_BTV.dtype, torch.float32)
    t_T = torch.arange(logits_BTV.shape[1], device=logits_BTV.device)
    inside_BT = t_T < frame_lengths_B[:, None]
    logits_BTV = torch.where(inside_BT[..., None], logits_BTV.to(dtype), 0.0)
    teacher_BTK = torch.where(inside_BT[..., None], topk_log_probs_BTK.to(dtype), -math.inf).detach()
    ids_BTK = torch.where(inside_BT[..., None], topk_ids_BTK.long(), 0)
    student_BTK = logits_BTV.log_softmax(-1).gather(-1, ids_BTK)
    # A token the teacher gives probability 0 costs nothing: 0 * log 0 = 0.
    kept = torch.where(teacher_BTK == -math.inf, 0.0, teacher_BTK.exp() * (teacher_BTK - student_BTK))
    teacher_rest_BT, student_rest_BT = (
        (1.0 - log_probs_BTK.exp().sum(-1)).clamp_min(MIN_REMAINDER)
        for log_probs_BTK in (teacher_BTK, student_BTK)
    )
    rest_BT = teacher_rest_BT * (teacher_rest_BT.log() - student_rest_BT.log())
    kl_BT = torch.where(inside_BT, kept.sum(-1) + rest_BT, 0.0)
    return kl_BT.sum(1) / frame_lengths_B.clamp_min(1)


def path_logits(
    path_BT: Tensor, encoded_BTJ: Tensor, predicted_BUJ: Tensor, weight_VJ: Tensor, bias_V: Tensor
) -> Tensor:
    """Joiner logits_BTV at the path's node (t, path_BT[b, t]) of each frame, from projected inputs."""
    index_BTJ = path_BT[..., None].expand(-1, -1, predicted_BUJ.shape[-1])
    return linear(torch.tanh(encoded_BTJ + predicted_BUJ.gather(1, index_BTJ)), weight_VJ, bias_V)
