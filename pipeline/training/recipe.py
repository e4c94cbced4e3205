"""What the training stages share: a fresh model, the data with or without a teacher's targets, one call to train."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from safetensors.torch import load_file

from pipeline.corpus.alignment import read_phones
from pipeline.corpus.datamodule import SpeechDataModule
from pipeline.corpus.teacher_targets import TargetStore
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.errors import UserError
from pipeline.models.transducer import Transducer, build_transducer
from pipeline.training.fit import Curves, TrainingRun, fit
from pipeline.training.objectives import objectives
from pipeline.training.task import TransducerTask

if TYPE_CHECKING:  # so that editing the compression does not retrain the teacher
    from pipeline.compression.compressor import Compressor

PREPARED = Path("data/prepare")
TARGETS = Path("data/label/targets")


def new_model(stage: str, params: Any) -> Transducer:
    """The transducer that `stage` (teacher, student) begins with, for the prepared corpus: its tokenizer's size, its
    feature statistics, or encoder and statistics of `init_from`.
    """
    vocab_size = Tokenizer.from_model(PREPARED / "tokenizer.model").vocab_size
    pl.seed_everything(params.seed, verbose=False)
    num_mel_bins = params.features.num_mel_bins
    data = {"num_mel_bins": num_mel_bins, "vocab_size": vocab_size, "num_phones": len(read_phones(PREPARED))}
    settings = {**params.model.as_dict(), **data}
    model = build_transducer(settings)
    statistics = load_file(PREPARED / "statistics.safetensors")
    model.set_statistics(statistics["mean_F"], statistics["std_F"])
    if params.init_from:
        take_encoder(model, params.init_from, stage)
    return model


def take_encoder(model: Transducer, folder: str | Path, stage: str) -> None:
    """Begin with the encoder (and its feature statistics) of a model that another run handed off.

    Vocabularies may differ, encoders may not: raises UserError, naming `stage`, for a missing file or other names or
    shapes.
    """
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise UserError(
            f"params.yaml: {stage}.init_from: {path} does not exist; name the data/{stage} of a run"
        )
    theirs = {name: t for name, t in load_file(path).items() if name.startswith(("encoder.", "feature_"))}
    ours = {name: t for name, t in model.state_dict().items() if name.startswith(("encoder.", "feature_"))}
    if {name: t.shape for name, t in theirs.items()} != {name: t.shape for name, t in ours.items()}:
        raise UserError(f"params.yaml: {stage}.init_from: {path} has another encoder than {stage}.model says")
    model.load_state_dict(theirs, strict=False)


def load_model(settings: Mapping[str, Any], tensors: Mapping[str, Any]) -> Transducer:
    """A model from a hand-off's card and tensors; tensors beside the model's own (scales) are left aside."""
    model = build_transducer(settings)
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    return model


def labelled_data(batch_seconds: float, seed: int) -> SpeechDataModule:
    """The labelled pool, for the teacher."""
    return SpeechDataModule(PREPARED, batch_seconds=batch_seconds, seed=seed)


def distillation_data(batch_seconds: float, seed: int) -> SpeechDataModule:
    """Both pools with the teacher's targets: transcripts where there are any, confident pseudo-labels elsewhere."""
    store = TargetStore(TARGETS)
    return SpeechDataModule(
        PREPARED,
        batch_seconds=batch_seconds,
        seed=seed,
        train_splits=("train", "unlabelled"),
        labels=store.pseudo_labels(),
        targets=store,
    )


def train(
    run: TrainingRun,
    model: Transducer,
    params: Any,
    data: SpeechDataModule,
    compressor: "Compressor | None" = None,
    callbacks: tuple[pl.Callback, ...] = (),
) -> tuple[Curves, dict[str, float]]:
    """Train `model` in place by the stage's `params`: curves, and metrics of the data."""
    task = TransducerTask(
        model,
        objectives(params.losses, has_teacher=data.targets is not None),
        params.augment,
        params.trainer,
        data.tokenizer,
        data.count_batches(params.trainer.epochs),
        params.seed,
        compressor,
        params.perturb,
    )
    curves = fit(task, data, params.trainer, run, callbacks)
    counts = {
        "utterances/train": len(data.train_cuts),
        "utterances/without_label": data.num_unlabelled,
        "utterances/too_short": data.num_dropped,
        "hours/train": sum(cut.duration for cut in data.train_cuts) / 3600,
        "wer/dev": curves.rows[-1].get("dev_wer", float("nan")),
    }
    return curves, counts
