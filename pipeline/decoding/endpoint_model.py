"""The end-of-utterance score: what the encoder hears and how long the decoder has been silent, through a tiny GRU.

    pause_TD = pause_features(token_frames, begins_word, blank_posterior_T)      # or pause_step, frame by frame
    score_BT = model(encoded_BTD, pause_BTD).sigmoid()                           # whole
    logit_BT, state = model.step(encoded_BTD, pause_BTD, state)                  # a stream, the same numbers

Sources: Chang et al. 2019, "Joint endpointing and decoding with end-to-end models" (ICASSP: the recogniser's encoder
serves the end-pointer too); Maas et al. 2018, "Combining acoustic embeddings and decoding features for end-of-utterance
detection in real-time far-field speech recognition systems" (ICASSP: pause features of the decoder).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

PAUSE_FEATURES = ("frames_since_token", "blank_mean", "has_words", "num_words")
BLANK_WINDOW_FRAMES = 5  # 400 ms: longer than the pause inside a word, shorter than a final silence


@dataclass(frozen=True)
class PauseState:
    """What the features remember. `blanks`: the blank posteriors of the last frames, at most the window."""

    num_frames: int = 0
    last_token_frame: int = -1
    num_words: int = 0
    blanks: tuple[float, ...] = ()


def pause_step(
    state: PauseState, num_tokens: int, num_new_words: int, blank_posterior: float
) -> tuple[np.ndarray, PauseState]:
    """One frame: how many tokens it emitted, how many of them begin a word, P(blank) in it -> (pause_D, state).

    Order: PAUSE_FEATURES. Before the first token the frames count from the start.
    """
    frame = state.num_frames
    blanks = (*state.blanks, float(blank_posterior))[-BLANK_WINDOW_FRAMES:]
    last_token_frame = frame if num_tokens else state.last_token_frame
    num_words = state.num_words + num_new_words
    pause_D = np.array(
        [frame - last_token_frame, math.fsum(blanks) / len(blanks), num_words > 0, num_words], np.float32
    )
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


@dataclass(frozen=True)
class EndpointModelConfig:
    """`encoder_width`: D of the recogniser's encoder. At 128 the model has 3,905 weights, at 320 6,977."""

    encoder_width: int
    projected_width: int = 16
    width: int = 16


class EndpointModel(nn.Module):
    """(encoded_BTD, pause_BTD) -> logit_BT, the log-odds that the speaker had finished by the end of frame t.

    Causal. Padding behind an utterance changes nothing before it. The encoder's output is projected first, because
    the recurrence would otherwise be most of the weights. Matrices are 2-D parameters and reach the kernel as
    arguments, so that masked or quantised ones are those in use.
    """

    def __init__(self, config: EndpointModelConfig):
        super().__init__()
        self.config = config
        width, input_width = config.width, config.projected_width + len(PAUSE_FEATURES)
        self.projection = nn.Linear(config.encoder_width, config.projected_width)
        self.weight_ih = nn.Parameter(torch.empty(3 * width, input_width))
        self.weight_hh = nn.Parameter(torch.empty(3 * width, width))
        self.bias_ih = nn.Parameter(torch.zeros(3 * width))
        self.bias_hh = nn.Parameter(torch.zeros(3 * width))
        self.output = nn.Linear(width, 1)
        nn.init.xavier_uniform_(self.weight_ih)
        for gate_DD in self.weight_hh.data.split(width):
            nn.init.orthogonal_(gate_DD)

    def forward(self, encoded_BTD: Tensor, pause_BTD: Tensor) -> Tensor:
        return self.step(encoded_BTD, pause_BTD, self.initial_state(len(encoded_BTD)))[0]

    def initial_state(self, batch: int) -> Tensor:
        """hidden_BD before the first frame."""
        return self.weight_hh.new_zeros(batch, self.config.width)

    def step(self, encoded_BTD: Tensor, pause_BTD: Tensor, hidden_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Any number of frames, also none -> (logit_BT, hidden_BD). The state is not changed in place."""
        if encoded_BTD.shape[1] == 0:  # torch's GRU refuses an empty sequence
            return encoded_BTD.new_zeros(encoded_BTD.shape[:2]), hidden_BD
        x_BTD = torch.cat([self.projection(encoded_BTD).tanh(), compress_counts(pause_BTD)], -1)
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        y_BTD, hidden_1BD = torch._VF.gru(
            x_BTD, hidden_BD[None].contiguous(), weights, True, 1, 0.0, self.training, False, True
        )
        return self.output(y_BTD)[..., 0], hidden_1BD[0]


def compress_counts(pause_BTD: Tensor) -> Tensor:
    """The two counts as logarithms: the tenth silent frame says less than the second."""
    frames_BT, blank_BT, has_words_BT, num_words_BT = pause_BTD.unbind(-1)
    return torch.stack([frames_BT.log1p(), blank_BT, has_words_BT, num_words_BT.log1p()], -1)
