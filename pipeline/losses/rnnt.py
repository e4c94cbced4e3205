"""The transducer loss, its joiner and its alignments, over blank and label log-probabilities only.

Topology `one_per_frame` (the default; "modified transducer" in k2): every frame emits blank or exactly one
label, so a label arc goes from node (t, u) to (t+1, u+1) and

    alpha(t+1, u) = logaddexp(alpha(t, u) + blank(t, u), alpha(t, u-1) + label(t, u-1)),
    loss = -alpha(T, U-1).

The recursion is a loop over T, vectorised over B and U. Alpha and beta run in the same loop: beta is alpha
of the lattice turned by 180 degrees. Gradients are minus the occupancies, so nothing is kept for autograd
but them.

Shapes: B utterances, T frames, U labels + 1, V tokens (blank = 0), D width. tokens_BU holds U-1 labels,
padded. An utterance with more labels than frames has no path: its loss and its gradients are 0 (see
`too_short`).

Sources: Graves 2012 (arXiv 1211.3711) eq. 12-20; Kuang et al. 2022 (arXiv 2206.13236), modified topology;
Yu et al. 2021, FastEmit (arXiv 2010.11148).
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.errors import UserError
from pipeline.losses.fused_joiner import BLANK_ID, FusedJoiner


def too_short(frame_lengths_B: Tensor, token_lengths_B: Tensor) -> Tensor:
    """True for utterances with more labels than frames, which no path can emit: count and report them."""
    return token_lengths_B > frame_lengths_B


def lattice_nodes(
    frame_lengths_B: Tensor, token_lengths_B: Tensor, num_frames: int, num_nodes: int
) -> Tensor:
    """True (nodes_BTU) where some path passes: u <= t, and the labels left fit into the frames left.

    Padding and the two unreachable corners are False; an utterance that is too short has no node at all.
    """
    t_T1 = torch.arange(num_frames, device=frame_lengths_B.device)[:, None]
    u_U = torch.arange(num_nodes, device=frame_lengths_B.device)
    frames_B11, labels_B11 = frame_lengths_B[:, None, None], token_lengths_B[:, None, None]
    within = (t_T1 < frames_B11) & (u_U <= labels_B11)
    return within & (u_U <= t_T1) & (labels_B11 - u_U <= frames_B11 - t_T1)


def label_log_probs(logits_BTUV: Tensor, tokens_BU: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of blank and next label at every node, (log_blank_BTU, log_label_BTU), by autograd.

    The last column of log_label_BTU has no next label; it repeats the blank and is never used.
    """
    log_probs_BTUV = logits_BTUV.log_softmax(-1)
    index_B1U1 = _next_labels(tokens_BU)[:, None, :, None].expand(-1, logits_BTUV.shape[1], -1, 1)
    return log_probs_BTUV[..., BLANK_ID], log_probs_BTUV.gather(-1, index_B1U1).squeeze(-1)


def _next_labels(tokens_BU: Tensor) -> Tensor:
    """Tokens with one blank appended: the label after node u is at index u, blank after the last node."""
    return torch.nn.functional.pad(tokens_BU.long(), (0, 1), value=BLANK_ID)


def _arcs(
    log_blank_BTU: Tensor, log_label_BTU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(blank_TBU, label_TBU, end_BU): time first, -inf where there is no arc; `end` is 0 at the last node.

    After its last frame an utterance stays at its last node for free: one recursion serves all lengths.
    """
    num_frames, num_nodes = log_blank_BTU.shape[1:]
    dtype = torch.promote_types(log_blank_BTU.dtype, torch.float32)
    t_T11 = torch.arange(num_frames, device=log_blank_BTU.device)[:, None, None]
    u_U = torch.arange(num_nodes, device=log_blank_BTU.device)
    labels_B1 = token_lengths_B[:, None]
    inside_TB1 = t_T11 < frame_lengths_B[:, None]
    end_BU = torch.full((len(labels_B1), num_nodes), -math.inf, dtype=dtype, device=u_U.device)
    end_BU.masked_fill_(u_U == labels_B1, 0.0)
    on_node_TBU = inside_TB1 & (u_U <= labels_B1)
    blank_TBU = torch.where(on_node_TBU, log_blank_BTU.transpose(0, 1).to(dtype), end_BU)
    label_TBU = log_label_BTU.transpose(0, 1).to(dtype)
    return blank_TBU, label_TBU.masked_fill(~(inside_TB1 & (u_U < labels_B1)), -math.inf), end_BU


class _Lattice:
    """Alpha and beta, each (T+1, B, U), and total_B = log P(labels | audio), with one symbol per frame."""

    def __init__(
        self, log_blank_BTU: Tensor, log_label_BTU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor
    ):
        B, T, U = log_blank_BTU.shape
        blank_TBU, label_TBU, end_BU = _arcs(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B)
        # Rows: alpha, then beta with time and labels reversed. Column 0 is a wall of -inf: u-1 is a slice.
        stay = torch.cat([blank_TBU, blank_TBU.flip(0, 2)], 1)
        enter = torch.cat([label_TBU.roll(1, 2), label_TBU.flip(0, 2)], 1)
        scores = blank_TBU.new_full((T + 1, 2 * B, U + 1), -math.inf)
        scores[0, :B, 1] = 0.0
        scores[0, B:, 1:] = end_BU.flip(1)
        for t in range(T):
            now, after = scores[t], scores[t + 1, :, 1:]
            torch.logaddexp(now[:, 1:] + stay[t], now[:, :-1] + enter[t], out=after)
        self.alpha, self.beta = scores[:, :B, 1:], scores[:, B:, 1:].flip(0, 2)
        self.total_B = self.alpha[-1].gather(1, token_lengths_B[:, None].long()).squeeze(1)
        self.blank_TBU, self.label_TBU = blank_TBU, label_TBU
        self.frame_lengths_B = frame_lengths_B

    def occupancies(self) -> tuple[Tensor, Tensor]:
        """Posterior of each arc, (blank_BTU, label_BTU); 0 in padding and without a path."""
        # A total of +inf turns every arc of a pathless utterance into exp(-inf) = 0 instead of NaN.
        total_B1 = self.total_B.masked_fill(self.total_B == -math.inf, math.inf)[:, None]
        before_TBU = self.alpha[:-1] - total_B1
        after_TBU = torch.nn.functional.pad(self.beta[1:, :, 1:], (0, 1), value=-math.inf)
        label_TBU = (before_TBU + self.label_TBU + after_TBU).exp_()
        t_T1 = torch.arange(len(before_TBU), device=before_TBU.device)[:, None]
        inside_TB1 = (t_T1 < self.frame_lengths_B)[..., None]
        blank_TBU = (before_TBU + self.blank_TBU + self.beta[1:]).exp_() * inside_TB1
        return blank_TBU.transpose(0, 1), label_TBU.transpose(0, 1)


class _TransducerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B, fastemit):
        lattice = _Lattice(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            ctx.save_for_backward(*lattice.occupancies())
            ctx.fastemit, ctx.dtypes = fastemit, (log_blank_BTU.dtype, log_label_BTU.dtype)
        # 0 for a pathless utterance alone: NaN from a diverged model must stay visible.
        return -lattice.total_B.masked_fill(lattice.total_B == -math.inf, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_B):
        blank_BTU, label_BTU = ctx.saved_tensors
        grad_B11 = -grad_B[:, None, None]
        grad_label_BTU = label_BTU * (grad_B11 * (1.0 + ctx.fastemit))
        return (blank_BTU * grad_B11).to(ctx.dtypes[0]), grad_label_BTU.to(ctx.dtypes[1]), None, None, None


def transducer_loss(
    log_blank_BTU: Tensor,
    log_label_BTU: Tensor,
    frame_lengths_B: Tensor,
    token_lengths_B: Tensor,
    fastemit: float = 0.0,
) -> Tensor:
    """-log P(labels | audio) of each utterance (loss_B, nats) with exactly one symbol per frame.

    Computed in float32 (float64 for float64 inputs). `fastemit` scales the gradients of labels by 1 +
    fastemit and leaves those of blanks and the value alone. Values in padding do not matter. An utterance
    with more labels than frames contributes 0 and has zero gradients; `too_short` tells which these are.
    """
    return _TransducerLoss.apply(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B, fastemit)


def occupancies(
    log_blank_BTU: Tensor, log_label_BTU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Posterior probability of each arc, (blank_BTU, label_BTU): 1 in sum per frame, and per label over T."""
    with torch.no_grad():
        return _Lattice(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B).occupancies()


def best_alignment(
    log_blank_BTU: Tensor, log_label_BTU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor
) -> Tensor:
    """Labels emitted before each frame on the most probable path (Viterbi), u_BT int64.

    In padding it is the label count. The path's node in frame t is (t, u_BT[b, t]); a label is emitted in
    the frame after which the count grows. Ties go to blank. An utterance that is too short has no alignment:
    every entry is its label count.
    """
    with torch.no_grad():
        blank_TBU, label_TBU, _ = _arcs(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B)
        T, B, U = blank_TBU.shape
        score_BU = blank_TBU.new_full((B, U), -math.inf)
        score_BU[:, 0] = 0.0
        emitted_TBU = torch.zeros(T, B, U, dtype=torch.bool, device=score_BU.device)
        for t in range(T):
            stay_BU = score_BU + blank_TBU[t]
            enter_BU = torch.nn.functional.pad((score_BU + label_TBU[t])[:, :-1], (1, 0), value=-math.inf)
            emitted_TBU[t] = enter_BU > stay_BU
            score_BU = torch.maximum(stay_BU, enter_BU)
        u_B = token_lengths_B.long()
        u_TB = torch.empty(T, B, dtype=torch.long, device=score_BU.device)
        for t in reversed(range(T)):
            u_B = u_B - emitted_TBU[t].gather(1, u_B[:, None]).squeeze(1).long()
            u_TB[t] = u_B
        return u_TB.transpose(0, 1)


def fused_joiner(
    encoded_BTD: Tensor,
    predicted_BUD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    tokens_BU: Tensor,
    frame_lengths_B: Tensor | None = None,
    token_lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`label_log_probs` of the joiner tanh(e + p) W^T + b, with gradients for its first four arguments.

    With lengths, only the nodes on some one-symbol-per-frame path are computed (about half of the rectangle
    in a usual batch); the others are 0 in both outputs and get no gradient: mask them with `lattice_nodes`.
    Without lengths, every node is computed. Float32 inside autocast too (float64 for float64 inputs).
    """
    (B, T, _), U = encoded_BTD.shape, predicted_BUD.shape[1]
    if frame_lengths_B is None or token_lengths_B is None:
        nodes_BTU = torch.ones(B, T, U, dtype=torch.bool, device=encoded_BTD.device)
    else:
        nodes_BTU = lattice_nodes(frame_lengths_B, token_lengths_B, T, U)
    return FusedJoiner.apply(
        encoded_BTD, predicted_BUD, weight_VD, bias_V, _next_labels(tokens_BU), nodes_BTU
    )


def rnnt_loss(
    logits_BTUV: Tensor,
    tokens_BU: Tensor,
    frame_lengths_B: Tensor,
    token_lengths_B: Tensor,
    *,
    topology: str = "one_per_frame",
    backend: str = "recursion",
    fastemit: float = 0.0,
) -> Tensor:
    """Transducer loss of each utterance (loss_B, nats) from joiner logits; blank is token 0.

    topology: "one_per_frame", or "regular" (any number of labels in a frame; Graves 2012).
    backend: "recursion" (this module), or "torchaudio" (reference kernel; regular topology, float32 only).
    Raises UserError for an unknown name and for torchaudio with another topology than "regular".
    """
    if topology not in ("one_per_frame", "regular"):
        raise UserError(f"loss topology {topology!r} is unknown: use one_per_frame or regular")
    if backend not in ("recursion", "torchaudio"):
        raise UserError(f"loss backend {backend!r} is unknown: use recursion or torchaudio")
    if backend == "torchaudio":
        if topology != "regular":
            raise UserError("loss backend torchaudio knows the topology regular alone: use backend recursion")
        return _torchaudio_loss(logits_BTUV, tokens_BU, frame_lengths_B, token_lengths_B, fastemit)
    log_blank_BTU, log_label_BTU = label_log_probs(logits_BTUV, tokens_BU)
    loss = transducer_loss if topology == "one_per_frame" else _regular_loss
    return loss(log_blank_BTU, log_label_BTU, frame_lengths_B, token_lengths_B, fastemit)


def _scale_gradient(x: Tensor, scale: Tensor | float) -> Tensor:
    """x itself, with its gradient multiplied by scale."""
    return x.detach() + (x - x.detach()) * scale


def _regular_loss(
    log_blank_BTU: Tensor,
    log_label_BTU: Tensor,
    frame_lengths_B: Tensor,
    token_lengths_B: Tensor,
    fastemit: float = 0.0,
) -> Tensor:
    """Regular topology by autograd, a loop over T only: with C_t(u) = sum of label(t, k) over k < u,

    alpha(t) = C_t + logcumsumexp(alpha(t-1) + blank(t-1) - C_t).
    """
    u_U = torch.arange(log_blank_BTU.shape[2], device=log_blank_BTU.device)
    # 0 beyond the last label: these nodes are never read, and C_t stays finite.
    log_label_BTU = _scale_gradient(log_label_BTU, 1.0 + fastemit).masked_fill(
        (u_U >= token_lengths_B[:, None])[:, None], 0.0
    )
    before_BTU = torch.nn.functional.pad(log_label_BTU.cumsum(2)[..., :-1], (1, 0))
    alpha_BU = before_BTU[:, 0]
    last_B1, total_B = token_lengths_B[:, None].long(), torch.zeros_like(log_blank_BTU[:, 0, 0])
    for t in range(log_blank_BTU.shape[1]):
        if t > 0:
            alpha_BU = before_BTU[:, t] + (alpha_BU - before_BTU[:, t]).logcumsumexp(1)
        alpha_BU = alpha_BU + log_blank_BTU[:, t]
        total_B = torch.where(frame_lengths_B == t + 1, alpha_BU.gather(1, last_B1).squeeze(1), total_B)
    return -total_B


def _torchaudio_loss(
    logits_BTUV: Tensor, tokens_BU: Tensor, frame_lengths_B: Tensor, token_lengths_B: Tensor, fastemit: float
) -> Tensor:
    """The kernel wants float32, int32, and shapes that equal the largest lengths."""
    import torchaudio  # slow to import, and only this backend needs it

    T, U = int(frame_lengths_B.max()), int(token_lengths_B.max()) + 1
    scale_V = torch.full((logits_BTUV.shape[-1],), 1.0 + fastemit, device=logits_BTUV.device)
    scale_V[BLANK_ID] = 1.0
    log_probs_BTUV = _scale_gradient(logits_BTUV[:, :T, :U].float().log_softmax(-1), scale_V)
    return torchaudio.functional.rnnt_loss(
        log_probs_BTUV.contiguous(),
        tokens_BU[:, : U - 1].int().contiguous(),
        frame_lengths_B.int(),
        token_lengths_B.int(),
        blank=BLANK_ID,
        clamp=-1.0,
        reduction="none",
        fused_log_softmax=False,
    )
