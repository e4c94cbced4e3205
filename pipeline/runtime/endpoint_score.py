"""Has the speaker finished? The score of a frame, for many streams at once: a trained model's, or a rule's.

    endpointer = load_endpointer("data/stream/endpointer.safetensors", recogniser=digest) or RULE
    hidden_D = endpointer.score.initial()
    scores, hidden = endpointer.score(encoded_BD, pause_BD, [hidden_H, …])     # one frame of each of B streams
    scores, hidden = endpointer.score.half(change_BF, hidden)                   # the middle of the next, in silence

The state machine over the score is `decoding/endpointer.py`, the model `decoding/endpoint_model.py`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.decoding.endpoint_input import PAUSE_FEATURES, EndpointModelConfig
from pipeline.decoding.endpointer import TICK_MS, TICKS_PER_FRAME, EndpointConfig
from pipeline.errors import UserError
from pipeline.files import write_atomically
from pipeline.runtime import fast_endpoint
from pipeline.runtime.fast_endpoint import EndpointWeights

if TYPE_CHECKING:
    from pipeline.decoding.endpoint_model import EndpointModel

NAME = "endpointer.safetensors"
FRAMES_SINCE_TOKEN, HAS_WORDS = PAUSE_FEATURES.index("frames_since_token"), PAUSE_FEATURES.index("has_words")


class Score(Protocol):
    """One frame of B streams: their encoder frames, pause features (PAUSE_FEATURES) and hidden states. `half`: 40 ms
    after it, `change_BF`: their mean log-mel energies less the frame's. It may or may not be asked between two frames.
    """

    def initial(self) -> Any: ...

    def __call__(
        self, encoded_BD: np.ndarray, pause_BD: np.ndarray, hidden: Sequence[Any]
    ) -> tuple[list[float], list[Any]]: ...

    def half(self, change_BF: np.ndarray, hidden: Sequence[Any]) -> tuple[list[float], list[Any]]: ...


@dataclass(frozen=True)
class RuleScore:
    """Silence as a share of `silence_ms`, the rule of Kaldi and sherpa-onnx as a score; 0 before the first word. Its
    hidden state is the number of ticks without a token, None before the first word.
    """

    silence_ms: float = 1_000.0

    def initial(self) -> None:
        return None

    def __call__(
        self, encoded_BD: np.ndarray, pause_BD: np.ndarray, hidden: Sequence[float | None]
    ) -> tuple[list[float], list[float | None]]:
        ticks = (TICKS_PER_FRAME * pause_BD[:, FRAMES_SINCE_TOKEN]).tolist()
        quiet = [silent if has else None for silent, has in zip(ticks, pause_BD[:, HAS_WORDS], strict=True)]
        return [self._share(silent) for silent in quiet], quiet

    def half(
        self, change_BF: np.ndarray, hidden: Sequence[float | None]
    ) -> tuple[list[float], list[float | None]]:
        return [self._share(None if silent is None else silent + 1) for silent in hidden], list(hidden)

    def _share(self, quiet_ticks: float | None) -> float:
        return min((quiet_ticks or 0.0) * TICK_MS / self.silence_ms, 1.0)


@dataclass(frozen=True)
class ModelScore:
    """A trained model's probability, compiled; a hidden state is its GRU's (H,)."""

    weights: EndpointWeights

    @cached_property
    def nameless(self) -> tuple[np.ndarray, ...]:
        return tuple(self.weights)

    def initial(self) -> np.ndarray:
        return np.zeros(len(self.weights.output_H), np.float32)

    def __call__(
        self, encoded_BD: np.ndarray, pause_BD: np.ndarray, hidden: Sequence[np.ndarray]
    ) -> tuple[list[float], list[np.ndarray]]:
        score_B, hidden_BH = fast_endpoint.score(encoded_BD, pause_BD, np.array(hidden), self.nameless)
        # Copies, or a stream would hold on to the memory of all that went with it.
        return score_B.tolist(), [hidden_H.copy() for hidden_H in hidden_BH]

    def half(
        self, change_BF: np.ndarray, hidden: Sequence[np.ndarray]
    ) -> tuple[list[float], list[np.ndarray]]:
        return fast_endpoint.half_score(change_BF, np.array(hidden), self.nameless).tolist(), list(hidden)


@dataclass(frozen=True)
class Endpointer:
    """A score and the thresholds that were chosen for it."""

    score: Score
    config: EndpointConfig


RULE = Endpointer(RuleScore(), EndpointConfig(speculative_threshold=0.6, final_threshold=0.8))


def write_endpointer(
    path: str | Path, model: "EndpointModel", config: EndpointConfig, recogniser: str = ""
) -> None:
    """Weights, sizes and thresholds as one safetensors file; `recogniser`: digest of the packed file it belongs to."""
    described = {"model": asdict(model.config), "thresholds": asdict(config), "recogniser": recogniser}
    write_atomically(Path(path), save(model.arrays(), {"endpointer": json.dumps(described, sort_keys=True)}))


def load_endpointer(path: str | Path, recogniser: str | None = None) -> Endpointer:
    """What `write_endpointer` wrote. Raises UserError for any other file, and for another recogniser's if one is
    given: its encoder's outputs mean something else.
    """
    try:
        with safe_open(str(path), framework="np") as file:
            described = json.loads((file.metadata() or {})["endpointer"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        weights = fast_endpoint.weights_of(arrays, EndpointModelConfig(**described["model"]))
        config = EndpointConfig(**described["thresholds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: is no end-pointer file; `dvc repro stream` writes one") from error
    if recogniser is not None and described.get("recogniser") != recogniser:
        raise UserError(f"{path}: was trained for another recogniser; run `dvc repro stream`")
    return Endpointer(ModelScore(weights), config)


def digest(path: str | Path) -> str:
    """What an end-pointer file remembers of its recogniser's packed file. Raises UserError if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read; give the path of a .sotto file") from error


def find_endpointer(recogniser: str | Path, path: str | Path | None = None) -> Endpointer:
    """The end-pointer in `path`; without one, that of the run which the packed file `recogniser` is of
    (data/pack/model.sotto → data/stream/endpointer.safetensors), if it was trained for this very file; else the rule.

    Raises UserError as `load_endpointer` where a path is given.
    """
    recogniser = Path(recogniser)
    if path is not None:
        return load_endpointer(path, digest(recogniser))
    beside = recogniser.parent.parent / "stream" / NAME
    try:
        return load_endpointer(beside, digest(recogniser)) if beside.is_file() else RULE
    except UserError:
        return RULE  # another recogniser's: the run has not come as far as its stage `stream` yet
