"""Batches of equal length in seconds: lhotse's bucketing sampler over cuts in memory, and the Lightning
module.

`batches()` gives a `DataLoader` of `Batch`; its sampler's `set_epoch` (which Lightning calls) fixes the
order, so that a resumed epoch equals an uninterrupted one. Cost: about 0.1 ms a cut.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from lhotse import CutSet
from lhotse.cut import MonoCut
from lhotse.dataset import DynamicBucketingSampler
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.corpus.alignment import PHONES_PER_FRAME, UNKNOWN, frame_phones, read_phones
from pipeline.corpus.batch import Batch
from pipeline.corpus.shards import load_cuts, load_feature_matrix
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.errors import UserError
from pipeline.features.fbank import FLOOR
from pipeline.features.frames import FEATURES_PER_FRAME, FRAME_S

TRAINING_BUCKETS = 30  # 3 % of a batch is padding; with 10 it was 7
SILENCE = math.log(FLOOR)

Targets = Callable[[list[str], int, int, int], object]  # (ids, B, T, U) -> TeacherTargets
Labels = Mapping[str, Sequence[int]]  # utterance id -> tokens


def batches(
    cuts: CutSet | Sequence[MonoCut],
    tokenizer: Tokenizer,
    batch_seconds: float,
    *,
    seed: int = 0,
    shuffle: bool = False,
    num_buckets: int = 10,
    num_workers: int = 0,
    phones: Mapping[str, int] | None = None,
    labels: Labels | None = None,
    targets: Targets | None = None,
) -> DataLoader:
    """A loader of `Batch` in which the longest utterance times their number stays under `batch_seconds`.

    `phones` gives the ids of aligned phones; `labels` replaces transcripts (pseudo-labels); `targets` adds what a
    teacher stored about the utterances.
    An utterance longer than `batch_seconds` makes a batch of its own.
    """
    cuts = list(cuts)
    if not cuts:
        raise UserError("there are no utterances to make batches of; look at rejected.jsonl of data/prepare")
    few = len(cuts) < 4 * num_buckets  # too few to divide by length: lhotse's estimate needs several a bucket
    sampler = DynamicBucketingSampler(
        cuts,
        max_duration=batch_seconds,
        num_buckets=num_buckets,
        duration_bins=[max(cut.duration for cut in cuts)] if few else None,
        shuffle=shuffle,
        seed=seed,
        sync_buckets=True,  # lhotse 1.33 loses the last partial batches of an epoch without it
        buffer_size=10_000,  # a bucket is shuffled for every batch that is drawn from it
        world_size=1,
        rank=0,
    )
    dataset = BatchDataset(tokenizer, phones, labels, targets)
    return DataLoader(dataset, sampler=Orders(sampler), batch_size=None, num_workers=num_workers)


class Orders(Sampler):
    """A sampler's batches epoch by epoch, each drawn once: a schedule counts them before the training."""

    def __init__(self, sampler: DynamicBucketingSampler):
        self.sampler, self.epoch = sampler, 0
        self._batches: dict[int, list[CutSet]] = {}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[CutSet]:
        return iter(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[CutSet]:
        if epoch not in self._batches:
            self.sampler.set_epoch(epoch)
            self._batches[epoch] = list(self.sampler)
        return self._batches[epoch]


class BatchDataset(Dataset):
    """Indexed by lists of cuts, as lhotse's samplers give them."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        phones: Mapping[str, int] | None = None,
        labels: Labels | None = None,
        targets: Targets | None = None,
    ):
        self.tokenizer, self.phones, self.labels, self.targets = tokenizer, phones, labels, targets
        self._tokens: dict[str, Sequence[int]] = {}

    def __getitem__(self, cuts: CutSet) -> Batch:
        return collate(list(cuts), self.tokens, self.phones, self.targets)

    def tokens(self, cut: MonoCut) -> Sequence[int]:
        """The label tokens of a cut: `labels` before the transcript, none where there is neither."""
        if cut.id not in self._tokens:
            text = cut.supervisions[0].text
            given = self.labels.get(cut.id) if self.labels is not None else None
            self._tokens[cut.id] = given if given is not None else self.tokenizer.encode(text or "")
        return self._tokens[cut.id]


def collate(
    cuts: list[MonoCut],
    tokens: Callable[[MonoCut], Sequence[int]],
    phones: Mapping[str, int] | None = None,
    targets: Targets | None = None,
) -> Batch:
    features = [load_feature_matrix(cut) for cut in cuts]
    labels = [tokens(cut) for cut in cuts]
    feature_lengths_B = torch.tensor([len(matrix) for matrix in features])
    token_lengths_B = torch.tensor([len(ids) for ids in labels])
    start_frames_B = torch.tensor([start_frame(cut) for cut in cuts])
    num_frames, num_labels = int(feature_lengths_B.max()), int(token_lengths_B.max())
    features_BNF = np.full((len(cuts), num_frames, features[0].shape[1]), SILENCE, np.float16)
    tokens_BU = np.zeros((len(cuts), num_labels), np.int64)
    for row, (matrix, ids) in enumerate(zip(features, labels, strict=True)):
        features_BNF[row, : len(matrix)] = matrix
        tokens_BU[row, : len(ids)] = ids
    ids = [cut.id for cut in cuts]
    num_heard_B = feature_lengths_B // FEATURES_PER_FRAME - start_frames_B
    num_heard = int(num_heard_B.max())
    phones_BM = np.full((len(cuts), PHONES_PER_FRAME * num_heard), UNKNOWN, np.int64)
    for row, cut in enumerate(cuts if phones else ()):
        heard_M = frame_phones(cut, phones, int(start_frames_B[row]), int(num_heard_B[row]))
        phones_BM[row, : len(heard_M)] = heard_M
    return Batch(
        features_BNF=torch.from_numpy(features_BNF).float(),
        feature_lengths_B=feature_lengths_B,
        start_frames_B=start_frames_B,
        tokens_BU=torch.from_numpy(tokens_BU),
        token_lengths_B=token_lengths_B,
        phones_BM=torch.from_numpy(phones_BM),
        utterances=cuts,
        targets=targets(ids, len(cuts), num_heard, num_labels + 1) if targets else None,
    )


def start_frame(cut: MonoCut) -> int:
    """The 80 ms frame in which the wake word ended (`custom.wake_word_end_s`); 0 without one."""
    end_s = (cut.supervisions[0].custom or {}).get("wake_word_end_s") or 0.0
    return min(int(end_s / FRAME_S), cut.features.num_frames // FEATURES_PER_FRAME)


def trainable(cuts: CutSet | Sequence[MonoCut], tokens: Callable[[MonoCut], Sequence[int]]) -> list[MonoCut]:
    """The cuts whose labels fit: at least one encoder frame per label (one symbol per frame), and one frame
    at all, after the wake word.
    """
    return [
        cut
        for cut in cuts
        if max(1, len(tokens(cut))) <= cut.features.num_frames // FEATURES_PER_FRAME - start_frame(cut)
    ]


class SpeechDataModule(pl.LightningDataModule):
    """The splits of a `data/prepare` folder; train can be any cuts (labelled, or pseudo-labelled through
    `labels`).

    `num_unlabelled` counts training utterances with neither transcript nor label, `num_dropped` those with
    more tokens than encoder frames; both are left out of training. dev and test keep all of theirs.
    """

    def __init__(
        self,
        prepare_dir: str | Path,
        *,
        batch_seconds: float,
        seed: int = 0,
        train_splits: Sequence[str] = ("train",),
        num_workers: int = 0,
        labels: Labels | None = None,
        targets: Targets | None = None,
    ):
        super().__init__()
        self.prepare_dir = Path(prepare_dir)
        self.batch_seconds, self.seed, self.num_workers = batch_seconds, seed, num_workers
        self.labels, self.targets = labels, targets
        self.tokenizer = Tokenizer.from_model(self.prepare_dir / "tokenizer.model")
        self.phones = read_phones(self.prepare_dir)
        every_cut = [cut for split in train_splits for cut in load_cuts(self.prepare_dir / split)]
        labelled = [
            cut for cut in every_cut if cut.supervisions[0].text is not None or cut.id in (labels or {})
        ]
        self.train_cuts = trainable(labelled, BatchDataset(self.tokenizer, labels=labels).tokens)
        self.num_unlabelled = len(every_cut) - len(labelled)
        self.num_dropped = len(labelled) - len(self.train_cuts)
        self._train_loader: DataLoader | None = None

    def train_dataloader(self) -> DataLoader:
        loader = self._training_loader()
        if self.trainer is not None:  # Lightning draws the first order before it names a resumed epoch
            loader.sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return loader

    def val_dataloader(self) -> DataLoader:
        return self.evaluation_loader("dev")

    def evaluation_loader(self, split: str) -> DataLoader:
        """Every utterance of a split, in a fixed order."""
        return batches(load_cuts(self.prepare_dir / split), self.tokenizer, self.batch_seconds)

    def count_batches(self, num_epochs: int) -> int:
        """Optimiser steps of `num_epochs` epochs, which a learning-rate schedule needs to know beforehand."""
        orders = self._training_loader().sampler
        return sum(len(orders.batches(epoch)) for epoch in range(num_epochs))

    def _training_loader(self) -> DataLoader:
        if self._train_loader is None:
            self._train_loader = batches(
                self.train_cuts,
                self.tokenizer,
                self.batch_seconds,
                seed=self.seed,
                shuffle=True,
                num_buckets=TRAINING_BUCKETS,
                num_workers=self.num_workers,
                phones=self.phones,
                labels=self.labels,
                targets=self.targets,
            )
        return self._train_loader
