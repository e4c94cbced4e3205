"""Frames of features and encoder, as in features/fbank.py and models/streaming.py, for what must not import torch."""

FRAME_SHIFT = 160  # samples at 16 kHz from a feature frame to the next
FEATURES_PER_FRAME = 8  # 10 ms feature frames in an 80 ms encoder frame
FEATURES_PER_TICK = 4  # in the 40 ms of `decoding/endpointer.py`
FRAME_S = 0.08  # an encoder frame


def num_frames(num_samples: int) -> int:
    """Feature frames of an utterance: rounded to the nearest, as Kaldi does."""
    return (num_samples + FRAME_SHIFT // 2) // FRAME_SHIFT
