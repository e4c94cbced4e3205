"""The packed recogniser as a device would run it: compiled, on the packed integers, without torch.

    recogniser = FastRecogniser(load_fast("release/model.sotto"))
    state = recogniser.stream()
    state = recogniser.accept(samples_S, state)  # 16 kHz mono, any number of samples
    state = recogniser.finish(state)
    recogniser.text(state)

The interface and, within float rounding, the numbers of runtime/recogniser.py, which is the reference. State goes in
and out and is never changed in place. The first use compiles for some seconds; the machine code is kept beside this
file. Cost: see `make bench`.
"""

from typing import NamedTuple

import numpy as np

from pipeline.errors import UserError
from pipeline.features.frames import FEATURES_PER_FRAME, FRAME_S, num_frames
from pipeline.runtime import fast_fbank, fast_step
from pipeline.runtime.fast_fbank import FbankState
from pipeline.runtime.fast_weights import FastModel
from pipeline.runtime.tensors import CONTEXT_SIZE

UNKNOWN_ID = 1


class FastState(NamedTuple):
    """What a stream remembers; fields as in `StreamState`. `predicted_J`: what the predictor adds."""

    fbank: FbankState
    features_NF: np.ndarray
    hidden_LD: np.ndarray
    cell_LD: np.ndarray
    predicted_J: np.ndarray
    context_2: np.ndarray
    start_frame: int
    num_frames: int = 0
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    log_prob: float = 0.0


class FastRecogniser:
    """A loaded model in use. It holds no stream: any number of streams may share it."""

    def __init__(self, model: FastModel):
        self.model = model

    def stream(self, from_s: float = 0.0) -> FastState:
        """The state of a stream before its first sample; what comes before `from_s` is heard, not searched."""
        if not from_s >= 0:
            raise UserError(f"from_s: {from_s} must not be negative")
        weights, num_bins = self.model.weights, self.model.num_mel_bins
        context_2 = np.zeros(CONTEXT_SIZE, np.int64)
        zeros_LD = np.zeros_like(weights.encoder.norms_L2D[:, 0])
        predicted_J = fast_step.predict(context_2, weights.search)
        none_NF = np.zeros((0, num_bins), np.float32)
        begun = (fast_fbank.initial_state(), none_NF, zeros_LD, zeros_LD)
        return FastState(*begun, predicted_J, context_2, int(from_s / FRAME_S))

    def accept(self, samples_S: np.ndarray, state: FastState) -> FastState:
        """Hear float32 samples at 16 kHz (any number, also none)."""
        features_NF, fbank_state = fast_fbank.step(samples_S, state.fbank, self.model.num_mel_bins)
        return self._advance(features_NF, state._replace(fbank=fbank_state))

    def finish(self, state: FastState) -> FastState:
        """The state after the last sample: what the features still held back is decoded."""
        state = self._advance(fast_fbank.flush(state.fbank, self.model.num_mel_bins), state)
        heard = num_frames(state.fbank.num_samples)
        if 0 < heard < FEATURES_PER_FRAME:  # as for whole recordings: padded to one frame
            padding_NF = np.zeros((FEATURES_PER_FRAME - heard, self.model.num_mel_bins), np.float32)
            state = self._advance(padding_NF, state)
        return state

    def text(self, state: FastState) -> str:
        """Text so far; blank and unknown tokens have none."""
        pieces = (self.model.pieces[token] for token in state.tokens if token > UNKNOWN_ID)
        return "".join(pieces).replace("\u2581", " ").strip()

    def _advance(self, features_NF: np.ndarray, state: FastState) -> FastState:
        features_NF = np.concatenate([state.features_NF, features_NF])
        num_new = len(features_NF) // FEATURES_PER_FRAME
        if num_new == 0:
            return state._replace(features_NF=features_NF)
        first_searched = state.start_frame - state.num_frames
        symbol_T, log_prob_T, *carried = fast_step.advance(
            features_NF,
            first_searched,
            state.hidden_LD,
            state.cell_LD,
            state.predicted_J,
            state.context_2,
            self.model.weights,
        )
        emitted = [(symbol, t - first_searched) for t, symbol in enumerate(symbol_T.tolist()) if symbol]
        log_prob = state.log_prob
        for frame_log_prob in log_prob_T.tolist():  # frame by frame: the sum must not depend on the chunks
            log_prob += frame_log_prob
        hidden_LD, cell_LD, predicted_J, context_2 = carried
        return state._replace(
            features_NF=features_NF[num_new * FEATURES_PER_FRAME :].copy(),
            hidden_LD=hidden_LD,
            cell_LD=cell_LD,
            predicted_J=predicted_J,
            context_2=context_2,
            num_frames=state.num_frames + num_new,
            tokens=(*state.tokens, *(symbol for symbol, _ in emitted)),
            frames=(*state.frames, *(frame for _, frame in emitted)),
            log_prob=log_prob,
        )
