"""How much the loss feels each weight: squared gradients, averaged over batches of the training data."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pipeline.corpus.batch import Batch
from pipeline.models.transducer import Transducer
from pipeline.training.objectives import StepView
from pipeline.training.task import Objective


def squared_gradients(
    model: Transducer, objectives: Sequence[Objective], batches: Iterable[Batch]
) -> dict[str, Tensor]:
    """{parameter: mean squared gradient of a batch's loss, in its shape}: the empirical Fisher matrix's diagonal.

    Without dropout; the model's gradients are dropped. Costs a training step for each batch.
    """
    was_training = model.training
    model.eval()
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    count = 0
    for batch in batches:
        model.zero_grad()
        outputs = model(batch.features_BNF, batch.feature_lengths_B, batch.tokens_BU, batch.start_frames_B)
        step = StepView.of(batch, outputs)
        sum(weight * function(step).mean() for _, weight, function in objectives).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad.square()
        count += 1
    model.zero_grad()
    model.train(was_training)
    return {name: value / max(1, count) for name, value in total.items()}
