"""A teacher over the pools: pseudo-labels for what has no transcript, lattice scores and top-k targets for all.

Shard by shard; a shard whose table is written is done, so that a killed run goes on where it was.
Cost: the teacher's forward pass, a minute for 30 hours and 6.3 M weights on 2 cores with bfloat16.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lhotse.cut import MonoCut
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from pipeline.corpus.datamodule import collate, trainable
from pipeline.corpus.teacher_targets import Target, write_shard
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.batch_beam import beam_search
from pipeline.decoding.lexicon import Lexicon
from pipeline.losses.distillation import path_logits
from pipeline.losses.rnnt import best_alignment, fused_joiner, transducer_loss
from pipeline.models.transducer import Transducer


def label_pool(
    model: Transducer,
    tokenizer: Tokenizer,
    cuts: Sequence[MonoCut],
    folder: Path,
    *,
    top_k: int,
    shard_size: int,
    batch_seconds: float,
    lexicon: Lexicon | None = None,
    in_bf16: bool = False,
) -> int:
    """Write the shards that are not there yet; returns the number of utterances too short for their transcript."""

    def transcript(cut: MonoCut) -> list[int]:
        return tokenizer.encode(cut.supervisions[0].text or "")

    usable = [cut for cut in cuts if cut.supervisions[0].text is None or trainable([cut], transcript)]
    usable = trainable(usable, lambda cut: ())
    starts = range(0, len(usable), shard_size)
    for index, start in enumerate(tqdm(starts, desc="label", unit="shard")):
        if (folder / f"{index:06d}.jsonl").exists():
            continue
        shard = sorted(usable[start : start + shard_size], key=lambda cut: cut.duration)
        targets = [
            target
            for group in _groups(shard, batch_seconds)
            for target in label_batch(model, tokenizer, group, top_k, lexicon, in_bf16)
        ]
        write_shard(folder, index, targets)
    return len(cuts) - len(usable)


@torch.no_grad()
def label_batch(
    model: Transducer,
    tokenizer: Tokenizer,
    cuts: Sequence[MonoCut],
    top_k: int,
    lexicon: Lexicon | None = None,
    in_bf16: bool = False,
) -> Iterator[Target]:
    """The targets of one batch; `model` is in evaluation mode, pseudo-labels are searched with `lexicon`.

    In bfloat16 the encoder alone: search and losses are many small products, each shape to be compiled anew.
    """
    batch = collate(list(cuts), lambda cut: tokenizer.encode(cut.supervisions[0].text or ""))
    inputs = (batch.features_BNF, batch.feature_lengths_B, batch.start_frames_B)
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
        encoded_BTD, frame_lengths_B = model.encode(*inputs)
    encoded_BTD = encoded_BTD.float()
    is_pseudo = [cut.supervisions[0].text is None for cut in cuts]
    heard = beam_search(model, encoded_BTD, frame_lengths_B, lexicon=lexicon) if any(is_pseudo) else []
    labels = [
        heard[b].tokens if is_pseudo[b] else batch.tokens_BU[b, : batch.token_lengths_B[b]].tolist()
        for b in range(len(cuts))
    ]
    token_lengths_B = torch.tensor([len(tokens) for tokens in labels])
    tokens_BU = pad_sequence([torch.tensor(tokens, dtype=torch.long) for tokens in labels], batch_first=True)
    joiner = model.joiner
    encoded_BTJ = joiner.encoder_projection(encoded_BTD)
    predicted_BUJ = joiner.predictor_projection(model.predict(tokens_BU))
    output = joiner.output
    lengths = (frame_lengths_B, token_lengths_B)
    lattice = fused_joiner(encoded_BTJ, predicted_BUJ, output.weight, output.bias, tokens_BU, *lengths)
    path_BT = best_alignment(*lattice, *lengths)
    confidence_B = -transducer_loss(*lattice, *lengths) / frame_lengths_B
    log_probs_BTV = path_logits(path_BT, encoded_BTJ, predicted_BUJ, output.weight, output.bias).log_softmax(
        -1
    )
    top_log_probs_BTK, top_ids_BTK = log_probs_BTV.topk(min(top_k, log_probs_BTV.shape[-1]))
    lattice_B2TU = torch.stack(lattice, 1)
    for b, cut in enumerate(cuts):
        frames, nodes = int(frame_lengths_B[b]), len(labels[b]) + 1
        yield Target(
            id=cut.id,
            labels=labels[b],
            confidence=round(float(confidence_B[b]), 6),
            is_pseudo=is_pseudo[b],
            lattice_2TU=lattice_B2TU[b, :, :frames, :nodes].numpy(),
            path_T=path_BT[b, :frames].numpy(),
            topk_ids_TK=top_ids_BTK[b, :frames].numpy(),
            topk_log_probs_TK=top_log_probs_BTK[b, :frames].numpy(),
        )


def _groups(cuts: Sequence[MonoCut], batch_seconds: float) -> Iterator[list[MonoCut]]:
    """Cuts sorted by length, in batches of up to `batch_seconds` with padding."""
    group: list[MonoCut] = []
    for cut in cuts:
        if group and cut.duration * (len(group) + 1) > batch_seconds:
            yield group
            group = []
        group.append(cut)
    if group:
        yield group
