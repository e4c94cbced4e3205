"""An export as sherpa-onnx hears it: the independent runtime that recognition and speed are compared with.

Both sides get the same samples, from the first on, and no start frame: sherpa-onnx knows none. `with_end` makes the
last encoder frame the same for both (see runtime/export.py for why it would not be).
"""

import logging
import shutil
from pathlib import Path

import numpy as np
import sherpa_onnx

# No import of ours: a process that runs sherpa-onnx alone should need its memory alone.
SAMPLE_RATE_HZ, FRAME_SHIFT = 16_000, 160
SILENCE_S = 0.1  # at least, behind the last sample
PARTS = ("encoder", "decoder", "joiner")
QUANTISED = ("MatMul", "LSTM")


def open_recogniser(folder: str | Path, num_mel_bins: int, num_threads: int = 1, **settings):
    """sherpa-onnx's `OnlineRecognizer` on an exported folder; `settings` as its `from_transducer` takes them."""
    folder = Path(folder)
    return sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(folder / "tokens.txt"),
        **{part: str(folder / f"{part}.onnx") for part in PARTS},
        feature_dim=num_mel_bins,
        num_threads=num_threads,
        **settings,
    )


def quantise(folder: Path, target: Path) -> None:
    """The exported folder again with ONNX Runtime's dynamic quantisation to int8, recurrences included."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target.mkdir(parents=True)
    logging.disable(logging.WARNING)  # it asks for preparations that change nothing here
    try:
        for part in PARTS:
            quantize_dynamic(
                folder / f"{part}.onnx",
                target / f"{part}.onnx",
                op_types_to_quantize=list(QUANTISED),
                weight_type=QuantType.QInt8,
            )
    finally:
        logging.disable(logging.NOTSET)
    shutil.copy(folder / "tokens.txt", target)


def with_end(samples_S: np.ndarray, chunk_ms: int) -> np.ndarray:
    """The samples and silence up to one feature frame more than a multiple of the chunk."""
    chunk_frames = chunk_ms * SAMPLE_RATE_HZ // 1000 // FRAME_SHIFT
    num_frames = (len(samples_S) + int(SILENCE_S * SAMPLE_RATE_HZ) + FRAME_SHIFT // 2) // FRAME_SHIFT
    count = -(-(num_frames - 1) // chunk_frames) * chunk_frames + 1
    return np.pad(samples_S, (0, count * FRAME_SHIFT - len(samples_S)))


def hear(recogniser, samples_S: np.ndarray, chunk_samples: int | None = None) -> str:
    """The text of float32 samples at 16 kHz, given in chunks, or at once."""
    stream = recogniser.create_stream()
    for start in range(0, len(samples_S), chunk_samples or len(samples_S)):
        stream.accept_waveform(SAMPLE_RATE_HZ, samples_S[start : start + (chunk_samples or len(samples_S))])
        while recogniser.is_ready(stream):
            recogniser.decode_stream(stream)
    stream.input_finished()
    while recogniser.is_ready(stream):
        recogniser.decode_stream(stream)
    return recogniser.get_result(stream).strip()
