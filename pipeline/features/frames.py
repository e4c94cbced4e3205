"""The clocks: samples, feature frames of 10 ms, encoder frames of 80 ms. Imports nothing, so that a device may."""

SAMPLE_RATE_HZ = 16_000
FRAME_SHIFT = 160  # samples from a feature frame to the next
FEATURES_PER_FRAME = 8  # 10 ms feature frames in an 80 ms encoder frame
FEATURES_PER_TICK = 4  # in the 40 ms of the end-pointer
FRAME_MS = 80
FRAME_S = 0.08


def num_frames(num_samples: int) -> int:
    """Feature frames of an utterance: rounded to the nearest, as Kaldi does."""
    return (num_samples + FRAME_SHIFT // 2) // FRAME_SHIFT
