"""What the stages sparsify and qat share: a compressor for a loaded model, its curves, its results."""

from collections.abc import Mapping

import pytorch_lightning as pl
from torch import Tensor, nn

from pipeline.compression.compressor import Compressor, CompressorConfig
from pipeline.compression.zeros_and_bits import as_csv, layer_table, totals

TRAINING_ONLY = ("ctc_head.",)  # stays float and out of the packed file


def without_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a model whose converted tensors these are."""
    return {name: value for name, value in tensors.items() if not _is_scale(name, tensors)}


def start_compressor(
    model: nn.Module, tensors: Mapping[str, Tensor], levels: int | None, sparsity: float | None
) -> Compressor:
    """A compressor for `model`, which holds `tensors`.

    `sparsity` None keeps the zeros that are there. `levels` None keeps the quantiser that came with the
    tensors (their `<name>.scale`), or float weights. Raises UserError for impossible values.
    """
    scales = {n.removesuffix(".scale"): value for n, value in tensors.items() if _is_scale(n, tensors)}
    config = CompressorConfig(levels=levels, sparsity=sparsity, exclude=TRAINING_ONLY)
    return Compressor(model, config, scales)


class CompressionCurves(pl.Callback):
    """Moves the schedules with the steps, and logs zeros and bits after every epoch."""

    def __init__(self, compressor: Compressor, model: nn.Module, name: str):
        self.compressor, self.model, self.name = compressor, model, name

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        last_step = max(1, int(trainer.estimated_stepping_batches) - 1)
        self.compressor.set_progress(trainer.global_step / last_step)

    def on_train_epoch_end(self, trainer, module) -> None:
        for key, value in totals(_compressed(self.compressor.convert(self.model))).items():
            module.log(f"{key}/{self.name}", value)


def results(compressor: Compressor, model: nn.Module, name: str) -> tuple[dict[str, Tensor], dict, str]:
    """(tensors to hand on, metrics `zeros/<name>` and `entropy/<name>`, table of the layers as CSV)."""
    compressor.set_progress(1.0)
    tensors = compressor.convert(model)
    kept = _compressed(tensors)
    return tensors, {f"{key}/{name}": value for key, value in totals(kept).items()}, as_csv(layer_table(kept))


def _compressed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.startswith(TRAINING_ONLY)}


def _is_scale(name: str, tensors: Mapping[str, Tensor]) -> bool:
    return name.endswith(".scale") and name.removesuffix(".scale") in tensors
