"""The transducer loss, its joiner and its alignments, over blank and label log-probabilities only.

Topology `one_per_frame` (the default; "modified transducer" in k2): every frame emits blank or exactly one label,
so a label arc goes from node (t, u) to (t+1, u+1) and

    alpha(t+1, u) = logaddexp(alpha(t, u) + blank(t, u), alpha(t, u-1) + label(t, u-1)),   loss = -alpha(T, U-1).

The recursion is a loop over T, vectorised over B and U. Alpha and beta run in the same loop: beta is alpha of the
lattice turned by 180 degrees. Gradients are minus the occupancies, so nothing is kept for autograd but them.

Shapes: B utterances, T frames, U labels + 1, V tokens (blank = 0), D width. tokens_BU holds U-1 labels, padded.
An utterance with more labels than frames has no path: its loss and its gradients are 0 (see `too_short`).

Sources: Graves 2012 (arXiv 1211.3711) eq. 12-20; Kuang et al. 2022 (arXiv 2206.13236), modified topology;
Yu et al. 2021, FastEmit (arXiv 2010.11148).
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.errors import UserError

BLANK_ID = 0


def too_short(frame_lengths_B: Tensor, token_lengths_B: Tensor) -> Tensor:
    """True for utterances with more labels than frames: no path with one symbol per frame exists. Count and report them."""
    return token_lengths_B > frame_lengths_B


def lattice_nodes(frame_lengths_B: Tensor, token_lengths_B: Tensor, num_frames: int, num_nodes: int) -> Tensor:
    """Nodes_BTU that lie on some path with one symbol per frame: u <= t, and the labels left fit in the frames left.

    Padding and the two unreachable corners are False; an utterance that is too short has no node at all.
    """
    t_T1 = torch.arange(num_frames, device=frame_lengths_B.device)[:, None]
    u_U = torch.arange(num_nodes, device=frame_lengths_B.device)
    frames_B11, labels_B11 = frame_lengths_B[:, None, None], token_lengths_B[:, None, None]
    within = (t_T1 < frames_B11) & (u_U <= labels_B11)
    return within & (u_U <= t_T1) & (labels_B11 - u_U <= frames_B11 - t_T1)


def label_log_probs(logits_BTUV: Tensor, tokens_BU: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of blank and of the next label at every node, (log_blank_BTU, log_label_BTU), by autograd.

    The last column of log_label_BTU has no next label; it repeats the blank and is never used.
    """
    log_probs_BTUV = logits_BTUV.log_softmax(-1)
    index_B1U1 = _next_labels(tokens_BU)[:, None, :, None].expand(-1, logits_BTUV.shape[1], -1, 1)
    return log_probs_BTUV[..., BLANK_ID], log_probs_BTUV.gather(-1, index_B1U1).squeeze(-1)


def _next_labels(tokens_BU: Tensor) -> Tensor:
    """Tokens with one blank appended, so that node u finds its next label (or blank at the end) at index u."""
    return torch.nn.functional.pad(tokens_BU.long(), (0, 1), value=BLANK_ID)


class _Lattice:
    """Alpha and beta of the one-symbol-per-frame lattice, each (T+1, B, U), with total_B = log P(labels | audio)."""

    def __init__(self, log_blank_BTU: Tensor, log_label_BTU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor):
        num_utterances, num_frames, num_nodes = log_blank_BTU.shape
        dtype = torch.promote_types(log_blank_BTU.dtype, torch.float32)
        t_T11 = torch.arange(num_frames, device=log_blank_BTU.device)[:, None, None]
        u_U = torch.arange(num_nodes, device=log_blank_BTU.device)
        inside_TB1 = t_T11 < frame_lengths_B[:, None]
        last_BU = u_U == token_lengths_B[:, None]
        start_BU = torch.full((num_utterances, num_nodes), -math.inf, dtype=dtype, device=log_blank_BTU.device)
        end_BU = start_BU.masked_fill(last_BU, 0.0)
        # After its last frame an utterance stays at its last node for free: one recursion serves all lengths.
        self.blank_TBU = torch.where(inside_TB1, log_blank_BTU.transpose(0, 1).to(dtype), end_BU)
        self.label_TBU = log_label_BTU.transpose(0, 1).to(dtype).masked_fill(
            ~(inside_TB1 & (u_U < token_lengths_B[:, None])), -math.inf
        )
        # Rows: alpha, then beta with time and labels reversed. Column 0 is a wall of -inf, so that u-1 is a slice.
        stay = torch.cat([self.blank_TBU, self.blank_TBU.flip(0, 2)], 1)
        enter = torch.cat([self.label_TBU.roll(1, 2), self.label_TBU.flip(0, 2)], 1)
        scores = torch.full((num_frames + 1, 2 * num_utterances, num_nodes + 1), -math.inf, dtype=dtype,
                            device=log_blank_BTU.device)
        scores[0, :num_utterances, 1] = 0.0
        scores[0, num_utterances:, 1:] = end_BU.flip(1)
        for t in range(num_frames):
            torch.logaddexp(scores[t, :, 1:] + stay[t], scores[t, :, :-1] + enter[t], out=scores[t + 1, :, 1:])
        self.alpha = scores[:, :num_utterances, 1:]
        self.beta = scores[:, num_utterances:, 1:].flip(0, 2)
        self.total_B = self.alpha[-1].gather(1, token_lengths_B[:, None].long()).squeeze(1)
        self.inside_TB1 = inside_TB1

    def occupancies(self) -> tuple[Tensor, Tensor]:
        """Posterior of each blank arc and each label arc, (blank_BTU, label_BTU); 0 in padding and without a path."""
        possible_B1 = torch.isfinite(self.total_B)[:, None]
        # A total of +inf turns every arc of a pathless utterance into exp(-inf) = 0 instead of NaN.
        before_TBU = self.alpha[:-1] - torch.where(possible_B1, self.total_B[:, None], math.inf)
        blank_TBU = (before_TBU + self.blank_TBU + self.beta[1:]).exp_() * self.inside_TB1
        after_TBU = torch.nn.functional.pad(self.beta[1:, :, 1:], (0, 1), value=-math.inf)
        label_TBU = (before_TBU + self.label_TBU + after_TBU).exp_()
        return blank_TBU.transpose(0, 1), label_TBU.transpose(0, 1)


class _TransducerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B, fastemit):
        lattice = _Lattice(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            ctx.save_for_backward(*lattice.occupancies())
            ctx.fastemit, ctx.dtypes = fastemit, (log_blank_BTU.dtype, log_label_BTU.dtype)
        return torch.where(torch.isfinite(lattice.total_B), -lattice.total_B, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_B):
        blank_BTU, label_BTU = ctx.saved_tensors
        grad_B11 = -grad_B[:, None, None]
        grad_label_BTU = label_BTU * (grad_B11 * (1.0 + ctx.fastemit))
        return (blank_BTU * grad_B11).to(ctx.dtypes[0]), grad_label_BTU.to(ctx.dtypes[1]), None, None, None


def transducer_loss(
    log_blank_BTU: Tensor, log_label_BTU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor, fastemit: float = 0.0
) -> Tensor:
    """-log P(labels | audio) of each utterance (loss_B, nats) with exactly one symbol per frame.

    Computed in float32 (float64 for float64 inputs). `fastemit` scales the gradients of labels by 1 + fastemit and
    leaves those of blanks and the value alone. Values in padding do not matter. An utterance with more labels than
    frames contributes 0 and has zero gradients; `too_short` tells which these are.
    """
    return _TransducerLoss.apply(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B, fastemit)


def occupancies(
    log_blank_BTU: Tensor, log_label_BTU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Posterior probability of each arc, (blank_BTU, label_BTU); per frame they sum to 1, label u sums to 1 over T."""
    with torch.no_grad():
        return _Lattice(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B).occupancies()


class _FusedJoiner(torch.autograd.Function):
    """log_softmax(tanh(e + p) W^T + b) at blank and next label, on the nodes that lie on a path, without their padding."""

    @staticmethod
    def forward(ctx, encoded_BTD, predicted_BUD, weight_VD, bias_V, next_BU, nodes_BTU):
        with torch.autocast(encoded_BTD.device.type, enabled=False):
            dtype = torch.promote_types(encoded_BTD.dtype, torch.float32)
            ctx.dtypes = [x.dtype for x in (encoded_BTD, predicted_BUD, weight_VD, bias_V)]
            encoded_BTD, predicted_BUD, weight_VD, bias_V = (
                x.to(dtype) for x in (encoded_BTD, predicted_BUD, weight_VD, bias_V)
            )
            (B, T, D), U = encoded_BTD.shape, predicted_BUD.shape[1]
            node_M = nodes_BTU.reshape(-1).nonzero().squeeze(1)
            frame_M = node_M.div(U, rounding_mode="floor")
            prefix_M = frame_M.div(T, rounding_mode="floor") * U + node_M % U
            hidden_MD = encoded_BTD.reshape(-1, D).index_select(0, frame_M)
            hidden_MD += predicted_BUD.reshape(-1, D).index_select(0, prefix_M)
            hidden_MD.tanh_()
            log_probs_MV = torch.addmm(bias_V, hidden_MD, weight_VD.t())
            log_probs_MV = log_probs_MV.log_softmax(-1)
            label_M = next_BU.reshape(-1).index_select(0, prefix_M)
            out = encoded_BTD.new_zeros(2, B * T * U)
            out[0, node_M] = log_probs_MV[:, BLANK_ID]
            out[1, node_M] = log_probs_MV.gather(1, label_M[:, None]).squeeze(1)
            ctx.save_for_backward(hidden_MD, log_probs_MV, weight_VD, node_M, label_M)
            ctx.shape = (B, T, U, D)
            return out[0].view(B, T, U), out[1].view(B, T, U)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_blank_BTU, grad_label_BTU):
        hidden_MD, log_probs_MV, weight_VD, node_M, label_M = ctx.saved_tensors
        B, T, U, D = ctx.shape
        with torch.autocast(hidden_MD.device.type, enabled=False):
            blank_M = grad_blank_BTU.reshape(-1).index_select(0, node_M)
            grad_label_M = grad_label_BTU.reshape(-1).index_select(0, node_M)
            grad_MV = log_probs_MV.exp().mul_(-(blank_M + grad_label_M)[:, None])
            grad_MV[:, BLANK_ID] += blank_M
            grad_MV.scatter_add_(1, label_M[:, None], grad_label_M[:, None])
            grad_weight_VD = grad_MV.t() @ hidden_MD
            grad_MD = (grad_MV @ weight_VD).mul_(1.0 - hidden_MD.square())
            grad_BTUD = grad_MD.new_zeros(B * T * U, D).index_copy_(0, node_M, grad_MD).view(B, T, U, D)
            grads = (grad_BTUD.sum(2), grad_BTUD.sum(1), grad_weight_VD, grad_MV.sum(0))
        return *(grad.to(dtype) for grad, dtype in zip(grads, ctx.dtypes, strict=True)), None, None


def fused_joiner(
    encoded_BTD: Tensor,
    predicted_BUD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    tokens_BU: Tensor,
    frame_lengths_B: Tensor | None = None,
    token_lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`label_log_probs` of the joiner tanh(e + p) W^T + b, with gradients for encoded, predicted, weight and bias.

    With lengths, only the nodes on some one-symbol-per-frame path are computed (about half of the rectangle in a usual
    batch); the others are 0 in both outputs and get no gradient: mask them with `lattice_nodes`. Without lengths,
    every node is computed. Float32 inside autocast too (float64 for float64 inputs).
    """
    (B, T, _), U = encoded_BTD.shape, predicted_BUD.shape[1]
    if frame_lengths_B is None or token_lengths_B is None:
        nodes_BTU = torch.ones(B, T, U, dtype=torch.bool, device=encoded_BTD.device)
    else:
        nodes_BTU = lattice_nodes(frame_lengths_B, token_lengths_B, T, U)
    return _FusedJoiner.apply(encoded_BTD, predicted_BUD, weight_VD, bias_V, _next_labels(tokens_BU), nodes_BTU)
