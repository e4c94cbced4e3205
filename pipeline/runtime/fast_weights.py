"""A packed file as the arrays that the compiled step reads: integers stay integers, nothing here needs torch.

A matrix is kept as int8 (C, R), transposed, with one scale a row: y_R = scale_R · Σ_C integer_CR x_C. The 0.3 MB of a
released student then stay in a core's second-level cache, where its float32 weights (1.3 MB) would not.
"""

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.compression import packed_format
from pipeline.compression.packed_format import Coded, Contents
from pipeline.errors import UserError
from pipeline.models.config import EncoderConfig, TransducerConfig
from pipeline.models.convolution_sizes import KERNEL, layer_sizes
from pipeline.runtime.tensors import check_tensors, config_of, lstm_shapes

MANTISSAS = (1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878)  # as in compression/quantizers.py


class Matrix(NamedTuple):
    """integers_CR int8, scale_R float32."""

    integers_CR: np.ndarray
    scale_R: np.ndarray


class ConvolutionWeights(NamedTuple):
    """Of all layers behind each other, none or many. Rows of `sizes_L4`: LayerSizes.

    Kernels are few numbers that each frame reads at many places, so they are float32: by input channel, place (nine),
    output channel.
    """

    kernels: np.ndarray
    biases: np.ndarray
    sizes_L4: np.ndarray


class EncoderWeights(NamedTuple):
    """L layers of D cells (G = 4 D gates i, f, g, o); I: inputs of the widest layer, shorter ones end in zero rows.

    `statistics_2F`: mean, scale. `norms_L2D`: weight, bias. `gates_bias_LG`. Vectors are float32.
    """

    statistics_2F: np.ndarray
    convolutions: ConvolutionWeights
    input: Matrix
    input_bias_I: np.ndarray
    from_input_LIG: np.ndarray
    from_hidden_LDG: np.ndarray
    gates_scale_L2G: np.ndarray
    gates_bias_LG: np.ndarray
    norms_L2D: np.ndarray


class SearchWeights(NamedTuple):
    """Predictor and joiner. `mixed_2VP`: what an older and a newer token add to the mix; its bias is in the latter."""

    encoder_projection: Matrix
    encoder_projection_bias_J: np.ndarray
    mixed_2VP: np.ndarray
    predictor_projection: Matrix
    output: Matrix
    output_bias_V: np.ndarray


class Weights(NamedTuple):
    """In two parts: what an encoder's step reads, and what a search's."""

    encoder: EncoderWeights
    search: SearchWeights


def nameless(parts: tuple) -> tuple:
    """A named tuple, and those in it, as plain tuples.

    Those cost compiled code a quarter of the time to take over, some 5 µs less for each call; it can name them again.
    """
    return tuple(nameless(part) if isinstance(part, tuple) else part for part in parts)


class FastModel(NamedTuple):
    weights: Weights
    pieces: tuple[str, ...]
    num_mel_bins: int


def load_fast(path: str | os.PathLike) -> FastModel:
    """Read a packed recogniser with an LSTM encoder. Raises UserError naming file and section if anything is wrong."""
    source = str(path)
    try:
        if os.path.getsize(source) > packed_format.MAX_FILE_BYTES:
            raise UserError(f"{source}: is too large to be a packed recogniser")
        data = Path(source).read_bytes()
    except OSError as error:
        reason = error.strerror
        raise UserError(f"{source}: cannot be read ({reason}); give the path of a .sotto file") from error
    contents = packed_format.unpack(data, source)
    try:
        weights, config = weights_of(contents), config_of(contents)
        return FastModel(
            weights, _pieces(contents.others["tokenizer"], config.vocab_size), config.num_mel_bins
        )
    except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
        message = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: section header describes no model of this engine ({message})") from error


def weights_of(contents: Contents) -> Weights:
    """The arrays of a packed LSTM transducer. Raises ValueError, or what a damaged header causes, for anything else."""
    config = config_of(contents)
    _check(config, contents)
    return _weights(config.encoder, contents)


def _weights(config: EncoderConfig, contents: Contents) -> Weights:
    coded, num_layers = contents.coded, config.num_layers

    def matrix(name: str) -> Matrix:
        item = coded[f"{name}.weight"]
        return Matrix(np.ascontiguousarray(item.integers.T.astype(np.int8)), _steps(item))

    def vector(name: str) -> np.ndarray:
        if name in coded:
            return coded[name].integers.astype(np.float32) * _steps(coded[name])
        return contents.plain[name].astype(np.float32)

    layers = [f"encoder.layers.{index}" for index in range(num_layers)]
    inputs = [coded[f"{layer}.weight_ih"] for layer in layers]
    recurrences = [coded[f"{layer}.weight_hh"] for layer in layers]
    widest = max(item.integers.shape[1] for item in inputs)
    from_input_LIG = np.zeros((num_layers, widest, len(inputs[0].integers)), np.int8)
    for rows_IG, item in zip(from_input_LIG, inputs, strict=True):
        rows_IG[: item.integers.shape[1]] = item.integers.T
    norms = [[vector(f"encoder.norms.{i}.{part}") for part in ("weight", "bias")] for i in range(num_layers)]
    sizes = layer_sizes(config.channels or ())
    kernels = [_kernel(coded[f"encoder.convolutions.{i}.weight"]) for i in range(len(sizes))]
    biases = [vector(f"encoder.convolutions.{i}.bias") for i in range(len(sizes))]
    none = np.zeros(0, np.float32)
    encoder = EncoderWeights(
        statistics_2F=np.stack([vector("feature_mean_F"), vector("feature_scale_F")]),
        convolutions=ConvolutionWeights(
            kernels=np.concatenate([none, *kernels]),
            biases=np.concatenate([none, *biases]),
            sizes_L4=np.array(sizes, np.int64).reshape(-1, 4),
        ),
        input=matrix("encoder.input"),
        input_bias_I=vector("encoder.input.bias"),
        from_input_LIG=from_input_LIG,
        from_hidden_LDG=np.stack(
            [np.ascontiguousarray(item.integers.T.astype(np.int8)) for item in recurrences]
        ),
        gates_scale_L2G=np.stack([[_steps(a), _steps(b)] for a, b in zip(inputs, recurrences, strict=True)]),
        gates_bias_LG=np.stack([vector(f"{layer}.bias") for layer in layers]),
        norms_L2D=np.array(norms),
    )
    search = SearchWeights(
        encoder_projection=matrix("joiner.encoder_projection"),
        encoder_projection_bias_J=vector("joiner.encoder_projection.bias"),
        mixed_2VP=_mixed(
            _floats(coded["predictor.embedding.weight"]),
            _floats(coded["predictor.mix.weight"]),
            vector("predictor.mix.bias"),
        ),
        predictor_projection=matrix("joiner.predictor_projection"),
        output=matrix("joiner.output"),
        output_bias_V=vector("joiner.output.bias"),
    )
    return Weights(encoder, search)


def _mixed(embedding_VP: np.ndarray, mix_PC: np.ndarray, bias_P: np.ndarray) -> np.ndarray:
    older_PP, newer_PP = np.split(mix_PC, 2, axis=1)
    return np.stack([embedding_VP @ older_PP.T, embedding_VP @ newer_PP.T + bias_P])


def _floats(item: Coded) -> np.ndarray:
    return item.integers.astype(np.float32) * _steps(item)[:, None]


def _kernel(item: Coded) -> np.ndarray:
    kernel_OKC = _floats(item).reshape(len(item.integers), KERNEL * KERNEL, -1)
    return kernel_OKC.transpose(2, 1, 0).ravel()


def _steps(item: Coded) -> np.ndarray:
    """Grid indices -> steps, exact in float32 (the formula of `quantizers.grid_values`)."""
    octaves = (divmod(int(index), len(MANTISSAS)) for index in np.clip(item.scale_index, -112, 127))
    steps = [math.ldexp(MANTISSAS[part], octave - 10) for octave, part in octaves]
    return np.array(steps, np.float32)


def _check(config: TransducerConfig, contents: Contents) -> None:
    """ValueError unless the tensors are those of an LSTM transducer of this configuration, small enough for int8."""
    check_tensors(config, contents)
    for name, shape in lstm_shapes(config).items():
        if len(shape) == 2 and name not in contents.coded:
            raise ValueError(f"{name} is not quantised")
    matrices = [item.integers for item in contents.coded.values() if item.integers.ndim == 2]
    if any(np.abs(integers).max(initial=0) > 127 for integers in matrices):
        raise ValueError("its weights have more than 255 levels")


def _pieces(data: bytes, vocab_size: int) -> tuple[str, ...]:
    """The tokenizer section's pieces; the scores behind them serve encoding alone."""
    count = int.from_bytes(data[:2], "little")
    lines = packed_format.decompress_text(data[2:]).decode().split("\n")
    if count != vocab_size or len(lines) < count:
        raise ValueError(f"section tokenizer holds {count} tokens, the model {vocab_size}")
    return tuple(lines[:count])
