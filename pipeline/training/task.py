"""The one LightningModule: a transducer, a list of objectives, and perhaps a compressor for its weights."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import kaldialign
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.func import functional_call

from pipeline.corpus.batch import Batch
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.greedy import greedy
from pipeline.features.augment import SpecAugmentConfig, spec_augment
from pipeline.features.perturb import PerturbConfig, Told, perturb, wrong_history
from pipeline.models.transducer import Transducer
from pipeline.training.config import TrainerConfig
from pipeline.training.objectives import StepView

if TYPE_CHECKING:  # so that editing the compression does not retrain the teacher
    from pipeline.compression.compressor import Compressor

Objective = tuple[str, float, Callable[[StepView], Tensor]]


class TransducerTask(pl.LightningModule):
    """Logs `loss` and one `loss/<objective>` per epoch, and the dev set's WER (greedy, for the curve) as `dev_wer`.

    With a compressor each step runs on `compressor.weights(model)`: masked, perhaps quantised.
    """

    def __init__(
        self,
        model: Transducer,
        objectives: Sequence[Objective],
        augment: SpecAugmentConfig,
        trainer_config: TrainerConfig,
        tokenizer: Tokenizer,
        num_steps: int,
        seed: int,
        compressor: "Compressor | None" = None,
        perturb: PerturbConfig | None = None,
    ):
        super().__init__()
        self.model, self.objectives, self.compressor = model, list(objectives), compressor
        self.augment, self.settings, self.tokenizer = augment, trainer_config, tokenizer
        self.perturb = perturb or PerturbConfig()
        self.hears_anew = replace(self.perturb, wrong_history=0.0) != PerturbConfig()
        self.num_steps, self.seed = num_steps, seed
        self._masks = torch.Generator()
        self._heard_by_dev = (model,)  # in a tuple: a submodule would be loaded over the model on resume
        self._losses, self._heard = torch.zeros(len(self.objectives) + 1), 0  # sums over an epoch
        self._dev_errors, self._dev_words = 0, 0

    def on_train_epoch_start(self) -> None:
        """Every draw of an epoch follows from (seed, epoch): a resumed epoch is the epoch that was lost."""
        self._masks.manual_seed(1_000_003 * self.seed + self.current_epoch)
        self._losses, self._heard = torch.zeros(len(self.objectives) + 1, device=self.device), 0

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        # Dropout, step by step: loaders draw from torch's generator too, at other moments after a resume.
        torch.manual_seed(1_000_003 * self.seed + self.global_step)
        if self.hears_anew:
            batch = told_anew(batch, self.perturb, self._masks)
        wrong, vocab_size = self.perturb.wrong_history, self.model.config.vocab_size
        history_BU = wrong_history(batch.tokens_BU, wrong, vocab_size, self._masks)
        features_BNF = spec_augment(batch.features_BNF, batch.feature_lengths_B, self.augment, self._masks)
        inputs = (features_BNF, batch.feature_lengths_B, history_BU, batch.start_frames_B)
        if self.compressor is None:
            outputs = self.model(*inputs)
        else:
            outputs = functional_call(self.model, self.compressor.weights(self.model), inputs)
        with torch.autocast(self.device.type, enabled=False):
            step = StepView.of(batch, outputs)
            parts = {name: function(step).mean() for name, _, function in self.objectives}
        loss = sum(weight * parts[name] for name, weight, _ in self.objectives)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {float(loss)} at step {self.global_step}: lower peak_lr")
        self._losses += len(batch.utterances) * torch.stack([*parts.values(), loss]).detach()
        self._heard += len(batch.utterances)
        if self.trainer.is_last_batch:  # once: Lightning's own mean of six losses was 3 % of a profiled step
            names = [*(f"loss/{name}" for name in parts), "loss"]
            means = dict(zip(names, self._losses / self._heard, strict=True))
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Dev hears the effective weights, in a copy: search calls parts of the model, not its forward."""
        if self.compressor is not None:
            effective = copy.deepcopy(self.model)
            effective.load_state_dict(self.compressor.weights(self.model), strict=False)
            self._heard_by_dev = (effective,)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        (model,) = self._heard_by_dev
        inputs = (batch.features_BNF, batch.feature_lengths_B, batch.start_frames_B)
        encoded_BTD, frame_lengths_B = model.encode(*inputs)
        paths = greedy(model, encoded_BTD, frame_lengths_B)
        for cut, result in zip(batch.utterances, paths, strict=True):
            reference = (cut.supervisions[0].text or "").split()
            found = kaldialign.edit_distance(reference, self.tokenizer.decode(result.tokens).split())
            self._dev_errors += found["total"]
            self._dev_words += len(reference)

    def on_validation_epoch_end(self) -> None:
        wer = 100.0 * self._dev_errors / max(1, self._dev_words)
        self._dev_errors, self._dev_words = 0, 0
        self.log("dev_wer", wer, prog_bar=True)

    def configure_optimizers(self):
        decay = [p for p in self.parameters() if p.requires_grad and p.ndim >= 2]
        rest = [p for p in self.parameters() if p.requires_grad and p.ndim < 2]
        groups = [
            {"params": decay, "weight_decay": self.settings.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.peak_lr, betas=(0.9, 0.98), fused=True)
        return one_cycle(optimizer, self.settings.peak_lr, self.settings.warmup_share, self.num_steps)


def one_cycle(optimizer: torch.optim.Optimizer, peak_lr: float, warmup_share: float, num_steps: int) -> dict:
    """What `configure_optimizers` returns: one cycle of the rate, a value for each step."""
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=peak_lr,
        total_steps=num_steps + 1,
        pct_start=max(warmup_share, 2 / num_steps),
        cycle_momentum=False,
        final_div_factor=100.0,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def told_anew(batch: Batch, config: PerturbConfig, generator: torch.Generator) -> Batch:
    """The batch as `perturb` tells it; what a teacher said of a frame moves with the frame."""
    told, frames_BT = perturb(
        Told(batch.features_BNF, batch.feature_lengths_B, batch.start_frames_B, batch.phones_BM),
        batch.token_lengths_B,
        config,
        generator,
    )
    targets = batch.targets and batch.targets.at_frames(frames_BT)
    return replace(batch, targets=targets, **told._asdict())
