"""`fit`: a task, its data and a trainer; checkpoints after every epoch, curves, resume after a kill.

Nothing but the epoch's end is ever resumed, and every draw follows from (seed, epoch): a run that was killed
gives the same numbers, digit for digit, as one that was not (same machine, same threads).
"""

import io
import zipfile
from pathlib import Path
from typing import Protocol

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tqdm import tqdm

from pipeline.corpus.datamodule import SpeechDataModule
from pipeline.training.config import TrainerConfig
from pipeline.training.precision import lightning_precision
from pipeline.training.task import TransducerTask


class TrainingRun(Protocol):
    """What a fit needs of a stage's run: where to keep checkpoints, and a Lightning logger."""

    scratch: Path
    logger: pl.loggers.Logger


class Curves(pl.Callback):
    """One row per epoch of everything that was logged; travels with the checkpoint."""

    def __init__(self):
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append(
            {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "lr": rate, **logged}
        )

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = list(state["rows"])

    def csv(self) -> str:
        buffer = io.StringIO()
        pd.DataFrame(self.rows).to_csv(buffer, index=False)
        return buffer.getvalue()


class ClipGradients(pl.Callback):
    """By their common norm; 0: not at all. The trainer's own clipping refuses a fused optimizer in bfloat16, whose
    gradients need no scale (Lightning 2.6).
    """

    def __init__(self, largest_norm: float):
        self.largest_norm = largest_norm

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        if self.largest_norm:
            torch.nn.utils.clip_grad_norm_(module.parameters(), self.largest_norm)


class Progress(pl.Callback):
    """One bar for the whole training: steps done and left, time left, loss, the dev set's WER."""

    def __init__(self, num_steps: int):
        self.num_steps = num_steps

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.bar = tqdm(
            total=self.num_steps, initial=trainer.global_step, desc="train", unit="step", mininterval=1.0
        )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        self.bar.update(trainer.global_step - self.bar.n)
        if batch_index % 20 == 0:
            wer = trainer.callback_metrics.get("dev_wer")
            shown = {"loss": f"{float(outputs['loss']):.2f}"}
            self.bar.set_postfix(
                shown | ({} if wer is None else {"dev_wer": f"{float(wer):.1f}"}), refresh=False
            )

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.bar.close()


def fit(
    task: TransducerTask,
    data: SpeechDataModule,
    config: TrainerConfig,
    run: TrainingRun,
    callbacks: tuple[pl.Callback, ...] = (),
) -> Curves:
    """Train to the end, going on from the run's last checkpoint if there is one."""
    curves = Curves()
    # The latest epoch, in one file. (save_last with save_top_k=0 writes nothing before the end: Lightning 2.6.)
    checkpoints = ModelCheckpoint(
        run.scratch, "last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True
    )
    trainer = pl.Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=1,
        precision=lightning_precision(config.precision),
        logger=run.logger,
        callbacks=[
            *callbacks,
            ClipGradients(config.gradient_clip),
            curves,
            checkpoints,
            Progress(task.num_steps),
        ],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=50,
    )
    last = run.scratch / "last.ckpt"
    whole = zipfile.is_zipfile(last)  # a kill can leave half a file where /tmp is another file system
    trainer.fit(task, datamodule=data, ckpt_path=str(last) if whole else None)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return curves
