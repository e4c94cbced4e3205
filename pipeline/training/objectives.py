"""Training objectives: a name in params.yaml, a weight, a function. A new loss is a line in OBJECTIVES.

Each takes what a step knows and gives loss_B in nats, summed over an utterance's frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy, ctc_loss

from pipeline.corpus.batch import Batch
from pipeline.errors import UserError
from pipeline.losses.distillation import best_path_kl, lattice_kl, path_logits
from pipeline.losses.rnnt import fused_joiner, transducer_loss
from pipeline.models.transducer import Outputs

BLANK_ID = 0


@dataclass(frozen=True)
class StepView:
    """A batch, the model's outputs for it, and the lattice scores that several objectives share."""

    batch: Batch
    outputs: Outputs
    log_blank_BTU: Tensor
    log_label_BTU: Tensor

    @staticmethod
    def of(batch: Batch, outputs: Outputs) -> "StepView":
        scores = fused_joiner(
            outputs.encoded_BTJ,
            outputs.predicted_BUJ,
            outputs.output_weight_VJ,
            outputs.output_bias_V,
            batch.tokens_BU,
            outputs.frame_lengths_B,
            batch.token_lengths_B,
        )
        return StepView(batch, outputs, *scores)


def transducer(step: StepView, fastemit: float = 0.0) -> Tensor:
    return transducer_loss(
        step.log_blank_BTU,
        step.log_label_BTU,
        step.outputs.frame_lengths_B,
        step.batch.token_lengths_B,
        fastemit,
    )


def ctc(step: StepView) -> Tensor:
    """CTC on the encoder's frames; utterances too short for their labels count 0."""
    log_probs_TBV = step.outputs.ctc_logits_BTV.float().log_softmax(-1).transpose(0, 1)
    lengths = (step.outputs.frame_lengths_B, step.batch.token_lengths_B)
    return ctc_loss(
        log_probs_TBV, step.batch.tokens_BU, *lengths, blank=BLANK_ID, reduction="none", zero_infinity=True
    )


def phone(step: StepView) -> Tensor:
    """Cross entropy of the phones where an alignment tells them, a quarter of it for each quarter frame.

    An encoder that knows its phones finds the words in half of the steps: pre-training with alignments (Hu et al.
    2020, arXiv 2005.00572), here as a second task from the first step on. Raises UserError without a phone head.
    """
    if step.outputs.phone_logits_BMP is None:
        raise UserError(
            "params.yaml: losses.phone needs alignments, which the prepared corpus has not; set it to 0"
        )
    logits_BPM = step.outputs.phone_logits_BMP.float().transpose(1, 2)
    loss_BM = cross_entropy(logits_BPM, step.batch.phones_BM, ignore_index=-1, reduction="none")
    return loss_BM.sum(1) / 4


def lattice(step: StepView) -> Tensor:
    """KL to the teacher in three classes over all nodes, times T: the scale of the transducer loss."""
    targets, lengths_B = step.batch.targets, step.outputs.frame_lengths_B
    kl_B = lattice_kl(
        step.log_blank_BTU,
        step.log_label_BTU,
        targets.log_blank_BTU,
        targets.log_label_BTU,
        lengths_B,
        step.batch.token_lengths_B,
    )
    return kl_B * lengths_B


def best_path(step: StepView) -> Tensor:
    """KL to the teacher's top-k tokens along its best path, times T."""
    targets, outputs = step.batch.targets, step.outputs
    inputs = (outputs.encoded_BTJ, outputs.predicted_BUJ)
    output = (value.to(inputs[0].dtype) for value in (outputs.output_weight_VJ, outputs.output_bias_V))
    logits_BTV = path_logits(targets.path_BT, *inputs, *output)
    kl_B = best_path_kl(logits_BTV, targets.topk_ids_BTK, targets.topk_log_probs_BTK, outputs.frame_lengths_B)
    return kl_B * outputs.frame_lengths_B


OBJECTIVES: dict[str, Callable[[StepView], Tensor]] = {
    "ctc": ctc,
    "phone": phone,
    "lattice": lattice,
    "best_path": best_path,
}
NEED_TEACHER = {"lattice", "best_path"}


def objectives(
    losses: Mapping[str, float], has_teacher: bool
) -> list[tuple[str, float, Callable[[StepView], Tensor]]]:
    """[(name, weight, function)], the transducer loss first with weight 1 (or `losses["transducer"]`).

    `fastemit` is no loss of its own but the transducer loss's gradient scale (Yu et al. 2021, arXiv 2010.11148).
    Raises UserError for an unknown name, or for a distillation loss where there is no teacher.
    """
    fastemit = losses.get("fastemit", 0.0)
    chosen = [("transducer", losses.get("transducer", 1.0), lambda step: transducer(step, fastemit))]
    for name, weight in losses.items():
        if name in ("fastemit", "transducer"):
            continue
        if name not in OBJECTIVES:
            known = ", ".join(["transducer", "fastemit", *OBJECTIVES])
            raise UserError(f"params.yaml: losses.{name} is unknown; known losses: {known}")
        if name in NEED_TEACHER and not has_teacher:
            raise UserError(f"params.yaml: losses.{name} needs a teacher's targets, which this stage has not")
        if weight:
            chosen.append((name, weight, OBJECTIVES[name]))
    return chosen
