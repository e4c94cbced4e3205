"""Training a language model: its data, its Lightning module, and one call that does all.

Every draw follows from (seed, epoch) or (seed, step), so that a resumed training gives the numbers of an
uninterrupted one. Batches hold sentences of like length: padding is a few percent.
"""

import math
from collections.abc import Iterator, Sequence
from random import Random

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.language.config import LanguageTrainerConfig
from pipeline.language.neural import LanguageModel, SentenceBatch, batch_of, negative_log_probs
from pipeline.training.fit import Curves, TrainingRun, fit
from pipeline.training.task import one_cycle

POOL_BATCHES = 32  # so many are drawn together and cut by length
Sentences = Sequence[Sequence[int]]


class SentenceBatches(Sampler):
    """Batches of sentence numbers, in another order for each epoch."""

    def __init__(self, lengths: Sequence[int], batch_sentences: int, seed: int):
        self.lengths, self.batch_sentences, self.seed, self.epoch = lengths, batch_sentences, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_sentences)

    def __iter__(self) -> Iterator[list[int]]:
        random, size = Random(f"{self.seed}/{self.epoch}"), self.batch_sentences
        order = random.sample(range(len(self.lengths)), len(self.lengths))
        batches = []
        for start in range(0, len(order), size * POOL_BATCHES):
            pool = sorted(order[start : start + size * POOL_BATCHES], key=lambda index: self.lengths[index])
            batches += [pool[first : first + size] for first in range(0, len(pool), size)]
        random.shuffle(batches)
        return iter(batches)


class _Batched(Dataset):
    """Sentences by lists of their numbers."""

    def __init__(self, sentences: Sentences):
        self.sentences = sentences

    def __getitem__(self, numbers: Sequence[int]) -> SentenceBatch:
        return batch_of([self.sentences[number] for number in numbers])


class SentenceData(pl.LightningDataModule):
    """Token ids of training and dev sentences."""

    def __init__(self, train: Sentences, dev: Sentences, batch_sentences: int, seed: int):
        super().__init__()
        self.train, self.dev = list(train), list(dev)
        self.batches = SentenceBatches([len(tokens) for tokens in self.train], batch_sentences, seed)

    def train_dataloader(self) -> DataLoader:
        if self.trainer is not None:
            self.batches.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        # As `sampler`, not as `batch_sampler`: only the former is told its epoch by Lightning.
        return DataLoader(_Batched(self.train), sampler=self.batches, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.dev, batch_size=self.batches.batch_sentences, collate_fn=batch_of)


class LanguageModelTask(pl.LightningModule):
    """Logs `loss` (nats per piece) and `dev_perplexity`, per piece too."""

    def __init__(self, model: LanguageModel, settings: LanguageTrainerConfig, num_steps: int, seed: int):
        super().__init__()
        self.model, self.settings, self.num_steps, self.seed = model, settings, num_steps, seed
        self._dev_loss, self._dev_pieces = 0.0, 0

    def training_step(self, batch: SentenceBatch, batch_index: int) -> Tensor:
        torch.manual_seed(1_000_003 * self.seed + self.global_step)  # dropout
        total, pieces = self._loss(batch)
        loss = total / pieces
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {float(loss.detach())} at step {self.global_step}: lower peak_lr"
            )
        self.log("loss", loss.detach(), on_step=False, on_epoch=True, batch_size=pieces)
        return loss

    def validation_step(self, batch: SentenceBatch, batch_index: int) -> None:
        total, pieces = self._loss(batch)
        self._dev_loss, self._dev_pieces = self._dev_loss + float(total), self._dev_pieces + pieces

    def on_validation_epoch_end(self) -> None:
        self.log("dev_perplexity", math.exp(min(50.0, self._dev_loss / max(1, self._dev_pieces))))
        self._dev_loss, self._dev_pieces = 0.0, 0

    def _loss(self, batch: SentenceBatch) -> tuple[Tensor, int]:
        """Sum of the sentences' losses, and the pieces that it is of."""
        loss_B = negative_log_probs(self.model(batch.inputs_BU).float(), batch.targets_BU)
        return loss_B.sum(), int((batch.targets_BU >= 0).sum())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self.settings.peak_lr,
            weight_decay=self.settings.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        return one_cycle(optimizer, self.settings.peak_lr, self.settings.warmup_share, self.num_steps)


def train_language_model(
    run: TrainingRun,
    model: LanguageModel,
    train: Sentences,
    dev: Sentences,
    settings: LanguageTrainerConfig,
    seed: int,
) -> Curves:
    """Train `model` in place on token ids; goes on from the run's last checkpoint if there is one."""
    data = SentenceData(train, dev, settings.batch_sentences, seed)
    task = LanguageModelTask(model, settings, settings.epochs * len(data.batches), seed)
    return fit(task, data, settings, run)
