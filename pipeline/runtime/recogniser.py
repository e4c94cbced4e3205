"""The packed recogniser as an object: whole recordings, or a stream that takes samples as they come.

    recogniser = Recogniser(load_packed("release/sotto.sotto"))
    recogniser.transcribe(samples_S, 44_100).text
    state = recogniser.stream()
    state = recogniser.accept(samples_S, state)  # 16 kHz mono, any number of samples
    recogniser.text(state)                       # what has been said so far
    state = recogniser.finish(state)

`transcribe` is the beam search, a stream is searched greedily, so that it never takes a word back (`engine.py` streams
with the beam). State goes in and out and is never changed in place: a state may be kept and gone on from twice. The
encoder always takes one 80 ms frame at a time, so that results do not depend on how the samples were cut.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from pipeline.decoding.token_lattice import TokenPath
from pipeline.errors import UserError
from pipeline.features import fbank
from pipeline.features.frames import FEATURES_PER_FRAME, FRAME_S, SAMPLE_RATE_HZ, num_frames
from pipeline.runtime.audio import SHORTEST_S
from pipeline.runtime.bundle import Packed
from pipeline.runtime.recognise import Transcript, transcribe

RATES_HZ = (4_000, 384_000)


@dataclass(frozen=True)
class StreamState:
    """What a stream remembers. `features_NF`: fewer than fill 80 ms; `frames`: when the tokens came, counted from
    `start_frame`, before which nothing is searched.
    """

    fbank: fbank.FbankState
    features_NF: Tensor
    encoder: Any
    start_frame: int = 0
    num_frames: int = 0
    context: tuple[int, int] = (0, 0)
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    log_prob: float = 0.0


class Recogniser:
    """A packed file in use. It holds no stream: any number of streams may share it."""

    def __init__(self, packed: Packed):
        self.packed, self.model = packed, packed.model

    def transcribe(
        self, samples: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ, from_s: float = 0.0
    ) -> Transcript:
        """Samples (S,) or (S, channels), float in [-1, 1] or integers, of any rate -> transcript from `from_s` on.

        Raises UserError for an impossible rate, samples that are no finite numbers, or less than 0.1 s.
        """
        return transcribe(self.packed, to_mono_16k(samples, sample_rate_hz), from_s)

    def stream(self, from_s: float = 0.0) -> StreamState:
        """The state of a stream before its first sample; what comes before `from_s` is heard, not searched."""
        config = self.packed.fbank_config
        features_NF = torch.zeros(0, config.num_mel_bins)
        encoder = self.model.initial_state(1)
        return StreamState(fbank.initial_state(config), features_NF, encoder, int(from_s / FRAME_S))

    def accept(self, samples_S: np.ndarray, state: StreamState) -> StreamState:
        """Hear float32 samples at 16 kHz (any number, also none)."""
        samples_S = torch.from_numpy(np.array(samples_S, dtype=np.float32))
        features_NF, fbank_state = fbank.step(samples_S, state.fbank, self.packed.fbank_config)
        return self._advance(features_NF, dataclasses.replace(state, fbank=fbank_state))

    @torch.inference_mode()
    def finish(self, state: StreamState) -> StreamState:
        """The state after the last sample: what the features and the encoder still held back is decoded."""
        state = self._advance(fbank.flush(state.fbank, self.packed.fbank_config), state)
        heard = num_frames(state.fbank.num_samples)
        if 0 < heard < FEATURES_PER_FRAME:  # as in `transcribe`: padded to one frame
            padding = FEATURES_PER_FRAME - heard
            state = self._advance(state.features_NF.new_zeros(padding, state.features_NF.shape[1]), state)
        return self._hear(self.model.flush(state.encoder), state)

    def text(self, state: StreamState) -> str:
        return self.packed.tokenizer.decode(state.tokens)

    def result(self, state: StreamState) -> TokenPath:
        """The same record that a whole utterance gives."""
        return TokenPath(list(state.tokens), list(state.frames), state.log_prob, 0.0)

    @torch.inference_mode()
    def _advance(self, features_NF: Tensor, state: StreamState) -> StreamState:
        features_NF = torch.cat([state.features_NF, features_NF])
        while len(features_NF) >= FEATURES_PER_FRAME:
            frame_1NF, features_NF = features_NF[None, :FEATURES_PER_FRAME], features_NF[FEATURES_PER_FRAME:]
            encoded_1TD, encoder = self.model.step(frame_1NF, state.encoder)
            state = self._hear(encoded_1TD, dataclasses.replace(state, encoder=encoder))
        return dataclasses.replace(state, features_NF=features_NF.clone())

    @torch.inference_mode()
    def _hear(self, encoded_1TD: Tensor, state: StreamState) -> StreamState:
        for encoded_1D in encoded_1TD.unbind(1):
            if state.num_frames >= state.start_frame:
                state = self._search(encoded_1D, state)
            state = dataclasses.replace(state, num_frames=state.num_frames + 1)
        return state

    def _search(self, encoded_1D: Tensor, state: StreamState) -> StreamState:
        """Greedy, at most one token in a frame."""
        predicted_1D = self.model.predict_context(torch.tensor([state.context]))
        log_probs_V = self.model.join(encoded_1D, predicted_1D)[0].log_softmax(-1)
        token = int(log_probs_V.argmax())
        state = dataclasses.replace(state, log_prob=state.log_prob + float(log_probs_V[token]))
        if token == self.packed.tokenizer.blank_id:
            return state
        return dataclasses.replace(
            state,
            context=(state.context[1], token),
            tokens=(*state.tokens, token),
            frames=(*state.frames, state.num_frames - state.start_frame),
        )


def to_mono_16k(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Samples (S,) or (S, channels) of any rate -> float32 (S,) at 16 kHz, channels averaged."""
    samples = np.asarray(samples)
    if not RATES_HZ[0] <= sample_rate_hz <= RATES_HZ[1]:
        raise UserError(f"sample_rate_hz: {sample_rate_hz} must lie between {RATES_HZ[0]} and {RATES_HZ[1]}")
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise UserError("samples: must be an array (samples,) or (samples, channels) of floats or integers")
    if samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    samples_S = samples.astype(np.float32) if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)
    if len(samples_S) < SHORTEST_S * sample_rate_hz or not np.isfinite(samples_S).all():
        raise UserError(f"samples: must be finite numbers, at least {SHORTEST_S} s of them")
    if sample_rate_hz != SAMPLE_RATE_HZ:
        samples_S = soxr.resample(samples_S, sample_rate_hz, SAMPLE_RATE_HZ)
    return np.ascontiguousarray(samples_S, dtype=np.float32)
