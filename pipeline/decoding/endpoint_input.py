"""What the end-pointer's model is given: its sizes, and how long the decoder has been silent in each 80 ms frame.

    pause_TD = pause_features(token_frames, begins_word, blank_posterior_T)      # or pause_step, frame by frame

Source: Maas et al. 2018, "Combining acoustic embeddings and decoding features for end-of-utterance detection in
real-time far-field speech recognition systems" (ICASSP: pause features of the decoder).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PAUSE_FEATURES = ("frames_since_token", "blank_mean", "has_words", "num_words")
BLANK_WINDOW_FRAMES = 5  # 400 ms: longer than the pause inside a word, shorter than a final silence


@dataclass(frozen=True)
class EndpointModelConfig:
    """`encoder_width`: D of the recogniser's encoder, `num_mel_bins`: F of its features. At 128 and 64 the model has
    4,842 weights, at 320 7,914.
    """

    encoder_width: int
    num_mel_bins: int = 64
    projected_width: int = 16
    width: int = 16
    change_width: int = 8


class PauseState(NamedTuple):
    """What the features remember. `blanks`: the blank posteriors of the last frames, at most the window."""

    num_frames: int = 0
    last_token_frame: int = -1
    num_words: int = 0
    blanks: tuple[float, ...] = ()


def pause_step(
    state: PauseState, num_tokens: int, num_new_words: int, blank_posterior: float
) -> tuple[tuple[float, ...], PauseState]:
    """One frame: how many tokens it emitted, how many of them begin a word, P(blank) in it -> (pause_D, state).

    Order: PAUSE_FEATURES. Before the first token the frames count from the start.
    """
    frame = state.num_frames
    blanks = (*state.blanks, float(blank_posterior))[-BLANK_WINDOW_FRAMES:]
    last_token_frame = frame if num_tokens else state.last_token_frame
    num_words = state.num_words + num_new_words
    pause_D = frame - last_token_frame, math.fsum(blanks) / len(blanks), num_words > 0, num_words
    return pause_D, PauseState(frame + 1, last_token_frame, num_words, blanks)


def pause_features(
    token_frames: Sequence[int], begins_word: Sequence[bool], blank_posterior_T: np.ndarray
) -> np.ndarray:
    """pause_TD (float32, D = 4) of a whole utterance, causal: row t knows nothing of what came after frame t.

    token_frames: the 80 ms frame of each token, rising, in [0, T); begins_word: whether its piece begins a word.
    Raises ValueError where the two differ in length or a frame lies outside.
    """
    num_frames = len(blank_posterior_T)
    if len(token_frames) != len(begins_word):
        raise ValueError(f"{len(token_frames)} token frames, {len(begins_word)} word beginnings")
    if any(not 0 <= frame < num_frames for frame in token_frames):
        raise ValueError(f"token frames must lie in [0, {num_frames})")
    frames = np.asarray(token_frames, dtype=np.int64)
    tokens_T = np.bincount(frames, minlength=num_frames)
    words_T = np.bincount(frames[np.asarray(begins_word, dtype=bool)], minlength=num_frames)
    pause_TD: np.ndarray = np.zeros((num_frames, len(PAUSE_FEATURES)), np.float32)
    state = PauseState()
    for t in range(num_frames):
        pause_TD[t], state = pause_step(state, int(tokens_T[t]), int(words_T[t]), float(blank_posterior_T[t]))
    return pause_TD
