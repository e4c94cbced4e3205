"""Sparsify and qat as trainings: they end compressed, and a killed one goes on to the same numbers."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from pipeline.corpus.batch import Batch
from pipeline.features.augment import SpecAugmentConfig
from pipeline.features.perturb import PerturbConfig
from pipeline.models.transducer import build_transducer
from pipeline.training import compress
from pipeline.training.config import TrainerConfig

MODEL = {
    "encoder": {"name": "lstm", "num_layers": 2, "width": 16, "dropout": 0.1},
    "predictor": {"width": 8},
    "joiner_width": 12,
    "num_mel_bins": 16,
    "vocab_size": 20,
}


class FourBatches(pl.LightningDataModule):
    """Random features and labels: the same in every epoch."""

    targets, train_cuts, num_unlabelled, num_dropped = None, [], 0, 0
    tokenizer = SimpleNamespace(decode=lambda ids: "one two")

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        cut = SimpleNamespace(supervisions=[SimpleNamespace(text="one two three")])
        self.batches = [
            Batch(
                torch.randn(4, 80, 16, generator=generator),
                torch.tensor([80, 72, 64, 80]),
                torch.zeros(4, dtype=torch.long),
                torch.randint(1, 20, (4, 3), generator=generator),
                torch.tensor([3, 2, 1, 3]),
                torch.full((4, 40), -1),
                [cut] * 4,
            )
            for _ in range(4)
        ]

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None)

    val_dataloader = train_dataloader

    def count_batches(self, num_epochs):
        return len(self.batches) * num_epochs


@dataclass
class Settings:
    sparsity: float | None
    levels: int | None
    bits: float | None = None
    seed: int = 1
    losses: dict = field(default_factory=lambda: {"ctc": 0.3, "fastemit": 0.003})
    augment: SpecAugmentConfig = SpecAugmentConfig()
    perturb: PerturbConfig = PerturbConfig()
    trainer: TrainerConfig = TrainerConfig(epochs=3, precision="fp32")


def fine_tune(folder, settings, tensors=None):
    torch.manual_seed(0)
    tensors = build_transducer(MODEL).state_dict() if tensors is None else tensors
    run = SimpleNamespace(scratch=folder, logger=False)
    return compress.fine_tune("qat", settings, MODEL, tensors, FourBatches(), run)


class Killed(Exception):
    pass


def test_a_killed_training_resumes_to_the_same_tensors_and_curves(tmp_path, monkeypatch):
    settings = Settings(sparsity=0.5, levels=15, bits=2.0)
    whole = fine_tune(tmp_path / "whole", settings)
    assert whole.metrics["zeros/qat"] >= 0.5 and 0 < whole.metrics["entropy/qat"] < 4
    assert len(whole.curves.splitlines()) == 1 + 3 and "zeros/qat" in whole.curves
    go_on = compress.CompressionCurves.on_train_batch_start

    def killed_in_the_second_epoch(self, trainer, module, batch, batch_index):
        if trainer.global_step == 6:
            raise Killed
        go_on(self, trainer, module, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(compress.CompressionCurves, "on_train_batch_start", killed_in_the_second_epoch)
        with pytest.raises(Killed):
            fine_tune(tmp_path / "killed", settings)
    assert (tmp_path / "killed" / "last.ckpt").exists()
    started = []
    with monkeypatch.context() as patch:
        patch.setattr(
            compress.CompressionCurves,
            "on_train_epoch_start",
            lambda self, trainer, module: started.append(trainer.current_epoch),
        )
        resumed = fine_tune(tmp_path / "killed", settings)
    assert started == [1, 2]
    assert resumed.curves == whole.curves
    assert all(torch.equal(resumed.tensors[name], tensor) for name, tensor in whole.tensors.items())


def test_a_second_stage_keeps_the_first_ones_levels(tmp_path):
    quantised = fine_tune(tmp_path / "first", Settings(sparsity=0.0, levels=7))
    sparse = fine_tune(tmp_path / "second", Settings(sparsity=0.5, levels=None), quantised.tensors)
    assert quantised.metrics["zeros/qat"] < 0.5 <= sparse.metrics["zeros/qat"]
    for name in ("encoder.layers.1.weight_hh", "joiner.output.weight"):
        integers = sparse.tensors[name] / sparse.tensors[f"{name}.scale"][:, None]
        assert torch.equal(integers, integers.round()) and integers.abs().max() <= 3
    assert "ctc_head.weight.scale" not in sparse.tensors
