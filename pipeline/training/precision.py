"""Float32, or bfloat16 where the processor multiplies it (elsewhere it would be slower)."""

import torch


def takes_bf16(precision: str) -> bool:
    """Whether `precision` (auto, bf16 or fp32) means bfloat16 on this processor."""
    return precision == "bf16" or (precision == "auto" and torch.cpu._is_avx512_bf16_supported())


def lightning_precision(precision: str) -> str:
    """What Lightning calls it, which takes a GPU where there is one; weights stay in float32."""
    by_gpu = precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if by_gpu or takes_bf16(precision) else "32-true"
