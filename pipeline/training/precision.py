"""Float32, or bfloat16 where the processor multiplies it (elsewhere it would be slower)."""

import torch


def takes_bf16(precision: str, on_gpu: bool = False) -> bool:
    """Whether `precision` (auto, bf16 or fp32) means bfloat16 here; `on_gpu`: where a GPU would do the work."""
    if precision == "auto":
        gpu_has_it = on_gpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return gpu_has_it or torch.cpu._is_avx512_bf16_supported()
    return precision == "bf16"


def lightning_precision(precision: str) -> str:
    """What Lightning calls it; weights stay in float32."""
    return "bf16-mixed" if takes_bf16(precision, on_gpu=True) else "32-true"
