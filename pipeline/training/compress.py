"""What the stages sparsify and qat share: train a model on with masks, levels or both, and convert it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import pytorch_lightning as pl
from torch import Tensor, nn

from pipeline.compression import quantizers, sparsifier
from pipeline.compression.allocation import allocate_steps, allocate_zeros
from pipeline.compression.compressor import Compressor, CompressorConfig
from pipeline.compression.zeros_and_bits import as_csv, layer_table, totals
from pipeline.corpus.datamodule import SpeechDataModule
from pipeline.features.augment import SpecAugmentConfig
from pipeline.features.perturb import PerturbConfig
from pipeline.models.transducer import TRAINING_ONLY, without_training_heads
from pipeline.training.config import TrainerConfig
from pipeline.training.fit import TrainingRun
from pipeline.training.objectives import objectives
from pipeline.training.recipe import load_model, train
from pipeline.training.sensitivity import squared_gradients

SENSITIVITY_BATCHES = 150  # each costs what a step of training costs


class Wanted(Protocol):
    """How small the model is to become."""

    sparsity: float | None
    levels: int | None
    bits: float | None


class Settings(Wanted, Protocol):
    """The parameters of either stage."""

    seed: int
    losses: dict[str, float]
    augment: SpecAugmentConfig
    perturb: PerturbConfig
    trainer: TrainerConfig


@dataclass(frozen=True)
class Compressed:
    """What a stage hands on. `metrics`: zeros/<name>, entropy/<name>; `layers`, `curves`: CSV."""

    tensors: dict[str, Tensor]
    metrics: dict[str, float]
    layers: str
    curves: str = ""


def fine_tune(
    name: str,
    settings: Settings,
    model_config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    data: SpeechDataModule,
    run: TrainingRun,
) -> Compressed:
    """Train the model of `tensors` on with the losses given, on its effective weights; then convert it."""
    model = load_model(model_config, tensors)
    sensitivities: dict[str, Tensor] = {}
    if settings.sparsity or settings.bits is not None:
        losses = objectives(settings.losses, has_teacher=data.targets is not None)
        batches = islice(data.train_dataloader(), SENSITIVITY_BATCHES)
        sensitivities = squared_gradients(model, losses, batches)
    compressor = start_compressor(model, tensors, settings, sensitivities)
    schedule = CompressionCurves(compressor, model, name, data.count_batches(settings.trainer.epochs))
    curves, counts = train(run, model, settings, data, compressor, (schedule,))
    done = results(compressor, model, name)
    return Compressed(done.tensors, counts | done.metrics, done.layers, curves.csv())


def start_compressor(
    model: nn.Module, tensors: Mapping[str, Tensor], settings: Wanted, sensitivities: Mapping[str, Tensor]
) -> Compressor:
    """A compressor for `model`, which holds `tensors`; zeros and steps where `sensitivities` say that they cost least.

    `sparsity` None keeps the zeros that are there. `levels` None keeps the quantiser that came with the
    tensors (their `<name>.scale`), or float weights. `bits` None begins with the steps of least squared error.
    Raises UserError for impossible values.
    """
    config = CompressorConfig(levels=settings.levels, sparsity=settings.sparsity, exclude=TRAINING_ONLY)
    scales = {n.removesuffix(".scale"): value for n, value in tensors.items() if _is_scale(n, tensors)}
    weights = {
        n: p.detach()
        for n, p in without_training_heads(dict(model.named_parameters())).items()
        if p.ndim == 2
    }
    shares = {}
    if settings.sparsity:
        shares = allocate_zeros(weights, sensitivities, settings.sparsity)
    if settings.levels is not None and settings.bits is not None:
        kept = {n: w * sparsifier.magnitude_mask(w, shares.get(n, 0.0)) for n, w in weights.items()}
        scales = allocate_steps(kept, sensitivities, quantizers.max_level(settings.levels), settings.bits)
    return Compressor(model, config, scales, shares)


class CompressionCurves(pl.Callback):
    """Moves the schedules with the steps, and logs zeros and bits after every epoch."""

    def __init__(self, compressor: Compressor, model: nn.Module, name: str, num_steps: int):
        self.compressor, self.model, self.name, self.num_steps = compressor, model, name, num_steps

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        self.compressor.set_progress(trainer.global_step / max(1, self.num_steps - 1))

    def on_train_epoch_end(self, trainer, module) -> None:
        for key, value in totals(without_training_heads(self.compressor.convert(self.model))).items():
            module.log(f"{key}/{self.name}", value)


def results(compressor: Compressor, model: nn.Module, name: str) -> Compressed:
    """The converted model, its zeros and bits."""
    compressor.set_progress(1.0)
    tensors = compressor.convert(model)
    kept = without_training_heads(tensors)
    metrics = {f"{key}/{name}": value for key, value in totals(kept).items()}
    return Compressed(tensors, metrics, as_csv(layer_table(kept)))


def _is_scale(name: str, tensors: Mapping[str, Tensor]) -> bool:
    return name.endswith(".scale") and name.removesuffix(".scale") in tensors
