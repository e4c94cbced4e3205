"""Whole-utterance recognition: features or samples in, words with times and a confidence out.

Two users: the command line (one file at a time) and the evaluation (thousands of utterances, batched by
length).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from pipeline.decoding.batch_beam import beam_search
from pipeline.decoding.lexicon import Lexicon
from pipeline.decoding.token_lattice import TokenPath
from pipeline.errors import UserError
from pipeline.features.fbank import fbank
from pipeline.features.frames import FEATURES_PER_FRAME, FRAME_S, SAMPLE_RATE_HZ
from pipeline.models.transducer import Transducer

# (model, encoded_BTD, frame_lengths_B) -> the path of each utterance
WholeSearch = Callable[[Transducer, torch.Tensor, torch.Tensor], list[TokenPath]]


@dataclass(frozen=True)
class Token:
    """A subword piece and when it was emitted, seconds from the start of the audio (end of its 80 ms
    frame).
    """

    piece: str
    time_s: float


@dataclass(frozen=True)
class Transcript:
    """`confidence`: geometric mean of the path's probability per token, 0…1. `rtf`: time taken / audio
    length.
    """

    text: str
    tokens: list[Token]
    confidence: float
    duration_s: float
    rtf: float


@torch.inference_mode()
def transcribe(
    packed, samples_S: np.ndarray, from_s: float = 0.0, search: WholeSearch | None = None
) -> Transcript:
    """One utterance (float32, 16 kHz, mono) through features, encoder and search (a beam search with the file's
    lexicon, unless told otherwise) of a loaded bundle.

    What is said before `from_s` (the end of a wake word) is heard, but not searched. Raises UserError where it is
    negative or lies behind the last frame.
    """
    duration_s = len(samples_S) / SAMPLE_RATE_HZ
    if not 0 <= from_s <= max(0.0, duration_s - FRAME_S):
        raise UserError(f"from_s: {from_s} must lie between 0 and the end of the audio, {duration_s:.2f} s")
    model = packed.model  # built at the first use, which is no part of the time
    start = time.perf_counter()
    features_1NF = fbank(torch.from_numpy(samples_S)[None], packed.fbank_config)
    start_frame = int(from_s / FRAME_S)
    search = search or partial(beam_search, lexicon=packed.lexicon)
    result = _decode_batch(model, [features_1NF[0]], [start_frame], search)[0]
    pieces = packed.tokenizer.pieces
    return Transcript(
        text=packed.tokenizer.decode(result.tokens),
        tokens=[
            Token(pieces[token][0], round((start_frame + frame + 1) * FRAME_S, 2))
            for token, frame in zip(result.tokens, result.frames, strict=True)
        ],
        confidence=confidence(result),
        duration_s=duration_s,
        rtf=(time.perf_counter() - start) / duration_s,
    )


def confidence(result: TokenPath) -> float:
    """exp(path log-probability / (tokens + 1)): 1 for a path without doubt, whatever its length."""
    return math.exp(min(0.0, float(result.log_prob)) / (len(result.tokens) + 1))


@torch.inference_mode()
def decode_many(
    model,
    features: Sequence[np.ndarray | torch.Tensor],
    start_frames: Sequence[int],
    batch_frames: int = 24_000,
    name: str = "",
    lexicon: Lexicon | None = None,
) -> list[TokenPath]:
    """Best paths (beam search, perhaps with a lexicon) for features (N, F) in the order given, each searched from its
    start frame (80 ms) on, where its emission frames count from; batches hold up to `batch_frames` padded 10 ms frames.

    Utterances go by length, so that batches hold little padding; progress on stderr.
    """
    order = sorted(range(len(features)), key=lambda index: -len(features[index]))
    results: list[TokenPath | None] = [None] * len(features)
    search = partial(beam_search, lexicon=lexicon)
    with tqdm(total=len(order), desc=name, unit="utt", mininterval=1.0) as progress:
        start = 0
        while start < len(order):
            size = max(1, batch_frames // max(1, len(features[order[start]])))
            chosen = order[start : start + size]
            found = _decode_batch(
                model, [features[i] for i in chosen], [start_frames[i] for i in chosen], search
            )
            for index, result in zip(chosen, found, strict=True):
                results[index] = result
            start += size
            progress.update(len(chosen))
    return results


def _decode_batch(
    model, features: Sequence[np.ndarray | torch.Tensor], start_frames: Sequence[int], search: WholeSearch
) -> list[TokenPath]:
    """features: list of (N, F). An utterance shorter than one encoder frame is padded to one."""
    tensors = [torch.as_tensor(np.asarray(item, dtype=np.float32)) for item in features]
    lengths_B = torch.tensor([max(FEATURES_PER_FRAME, len(item)) for item in tensors])
    features_BNF = tensors[0].new_zeros(len(tensors), int(lengths_B.max()), tensors[0].shape[1])
    for row, item in enumerate(tensors):
        features_BNF[row, : len(item)] = item
    device = next(iter(model.parameters())).device
    inputs_B = (lengths_B.to(device), torch.tensor(start_frames, device=device))
    encoded_BTD, frame_lengths_B = model.encode(features_BNF.to(device), *inputs_B)
    return search(model, encoded_BTD, frame_lengths_B)
