"""Joiner and transducer loss, forward and backward: ours, plain autograd and torchaudio's kernel.

Run:    python bench/losses.py [THREADS]      Cost: half a minute on 2 cores
Prints median and least milliseconds of interleaved repetitions and the ratio of medians to plain autograd.
The batch has lengths as a bucketed batch has them: 70 to 100 % of the frames, 60 to 100 % of the labels.
"""

import statistics
import sys
import time
from collections import defaultdict

import torch

from pipeline.losses.rnnt import fused_joiner, label_log_probs, lattice_nodes, rnnt_loss, transducer_loss

SHAPES = [  # utterances, frames, labels + 1, width, tokens
    (32, 36, 14, 192, 128),
    (32, 36, 14, 192, 256),
]
REPETITIONS = 25


def batch(B: int, T: int, U: int, D: int, V: int):
    generator = torch.Generator().manual_seed(1)
    shapes = (B, T, D), (B, U, D), (V, D), (V,)
    weights = [torch.randn(s, generator=generator).mul_(D**-0.5).requires_grad_() for s in shapes]
    tokens_BU = torch.randint(1, V, (B, U - 1), generator=generator)
    share_B = 0.7 + 0.3 * torch.rand(B, generator=generator)
    share_B[0] = 1.0
    labels_B = share_B * (0.6 + 0.4 * torch.rand(B, generator=generator)) * (U - 1)
    labels_B[0] = U - 1
    return weights, tokens_BU, (share_B * T).long(), labels_B.long()


def logits(encoded_BTD, predicted_BUD, weight_VD, bias_V):
    return torch.tanh(encoded_BTD[:, :, None] + predicted_BUD[:, None]) @ weight_VD.t() + bias_V


def torchaudio_regular(weights, tokens, *lengths):
    return rnnt_loss(logits(*weights), tokens, *lengths, topology="regular", backend="torchaudio")


def recursion_regular(weights, tokens, *lengths):
    return rnnt_loss(logits(*weights), tokens, *lengths, topology="regular")


def plain_autograd(weights, tokens, *lengths):
    return transducer_loss(*label_log_probs(logits(*weights), tokens), *lengths)


def fused_all_nodes(weights, tokens, *lengths):
    return transducer_loss(*fused_joiner(*weights, tokens), *lengths)


def fused_path_nodes(weights, tokens, *lengths):
    return transducer_loss(*fused_joiner(*weights, tokens, *lengths), *lengths)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    ways = [torchaudio_regular, recursion_regular, plain_autograd, fused_all_nodes, fused_path_nodes]
    for shape in SHAPES:
        weights, tokens, *lengths = batch(*shape)
        share = lattice_nodes(*lengths, shape[1], shape[2]).float().mean().item()
        print(f"B, T, U, D, V = {shape}: {share:.0%} of the nodes lie on a path")
        seconds = defaultdict(list)
        for _ in range(REPETITIONS):
            for way in ways:
                start = time.perf_counter()
                torch.autograd.grad(way(weights, tokens, *lengths).sum(), weights)
                seconds[way.__name__].append(time.perf_counter() - start)
        base = statistics.median(seconds["plain_autograd"])
        for name, values in seconds.items():
            median = statistics.median(values)
            print(
                f"  {name:18} {1e3 * median:7.1f} ms  (least {1e3 * min(values):6.1f})  {median / base:5.2f}"
            )


if __name__ == "__main__":
    main()
