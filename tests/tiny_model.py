"""A packed recogniser with random weights that talks without end: what it says means nothing, how it says it does."""

import random
from pathlib import Path

import numpy as np
import torch

from pipeline.compression.compressor import Compressor, CompressorConfig
from pipeline.corpus.tokenizer import Tokenizer, train_tokenizer
from pipeline.features.fbank import FbankConfig
from pipeline.models.transducer import build_transducer
from pipeline.runtime.bundle import Packed, load_packed
from pipeline.runtime.bundle_model import write_packed

WORDS = "turn on the light in kitchen play some jazz call anna set a timer for ten minutes what is".split()
BLANK_BONUS = 3.0  # nats for blank, so that words take their time


def write_tiny(path: Path, encoder: str = "lstm") -> Path:
    """One layer, 48 tokens, 16 mel bins; loads in milliseconds."""
    drawn = random.Random(0)
    tokenizer = Tokenizer(train_tokenizer([" ".join(drawn.choices(WORDS, k=6)) for _ in range(200)], 48))
    config = {
        "encoder": {"name": encoder, "num_layers": 1, "width": 24},
        "predictor": {"width": 20},
        "joiner_width": 20,
        "vocab_size": tokenizer.vocab_size,
        "num_mel_bins": 16,
    }
    torch.manual_seed(0)
    model = build_transducer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2.0)
        model.joiner.output.bias[0] += BLANK_BONUS
    tensors = Compressor(model, CompressorConfig(levels=15, sparsity=None)).convert(model)
    write_packed(path, config, tensors, tokenizer, FbankConfig(num_mel_bins=16))
    return path


def tiny_packed(folder: Path, encoder: str = "lstm") -> Packed:
    return load_packed(write_tiny(folder / f"{encoder}.sotto", encoder))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose level goes up and down: the random model says more in some places than in others."""
    drawn = np.random.default_rng(seed)
    time_s = np.arange(int(16_000 * seconds)) / 16_000
    level = 10 ** (-1.5 + 1.5 * np.sin(3 * time_s + seed))
    return (0.1 * level * drawn.standard_normal(len(time_s))).astype(np.float32)
