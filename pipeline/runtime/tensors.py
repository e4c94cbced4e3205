"""Names and shapes of an LSTM transducer's tensors: they judge a file without the model (`models/transducer.py`)."""

from collections.abc import Sequence

from pipeline.compression.packed_format import Contents
from pipeline.features.frames import FEATURES_PER_FRAME
from pipeline.models.config import TransducerConfig
from pipeline.models.convolution_sizes import KERNEL, layer_sizes, output_width

CONTEXT_SIZE = 2  # tokens that the predictor sees
STATISTICS = "statistics."  # prefix of tensors beside the model's
LARGEST_SETTING = 8192  # no width, layer count or table of a file's model may be larger
MOST_CONVOLUTIONS, MOST_CHANNELS = 8, 1024


def config_of(contents: Contents) -> TransducerConfig:
    """The header's model. Raises ValueError, or what a damaged header causes, where features do not fit it."""
    config = TransducerConfig.of(contents.info["model"])
    if contents.info["features"] != {"num_mel_bins": config.num_mel_bins}:
        raise ValueError("its features are not the model's log-mel energies")
    return config


def check_tensors(config: TransducerConfig, contents: Contents) -> None:
    """ValueError unless the contents hold the tensors of this LSTM transducer, no more and no others."""
    if config.encoder.name != "lstm":
        raise ValueError(f"its encoder is {config.encoder.name}, this engine knows lstm")
    given = {name: item.integers.shape for name, item in contents.coded.items()}
    given |= {name: array.shape for name, array in contents.plain.items()}
    check_shapes(
        lstm_shapes(config), {n: shape for n, shape in given.items() if not n.startswith(STATISTICS)}
    )


def check_shapes(expected: dict[str, tuple[int, ...]], given: dict[str, tuple[int, ...]]) -> None:
    """ValueError naming a tensor that is missing, too much, or of another shape."""
    for name in expected.keys() | given.keys():
        if expected.get(name) != given.get(name):
            raise ValueError(f"{name} has shape {given.get(name)}, the model needs {expected.get(name)}")


def lstm_shapes(config: TransducerConfig) -> dict[str, tuple[int, ...]]:
    """What recognition needs, by name. ValueError for sizes that are none."""
    encoder, joiner = config.encoder, config.joiner_width
    width, bins, vocab = encoder.width, config.num_mel_bins, config.vocab_size
    first, predictor = encoder.input_width or width, config.predictor.width
    channels = encoder.channels or ()
    _check_sizes((width, bins, vocab, joiner, first, predictor, encoder.num_layers), LARGEST_SETTING)
    if not isinstance(channels, tuple) or len(channels) > MOST_CONVOLUTIONS:
        raise ValueError(f"its channels are no list of at most {MOST_CONVOLUTIONS} sizes")
    _check_sizes(channels, MOST_CHANNELS)
    shapes = {
        "feature_mean_F": (bins,),
        "feature_scale_F": (bins,),
        "encoder.input.weight": (first, output_width(FEATURES_PER_FRAME, bins, channels)),
        "encoder.input.bias": (first,),
        "predictor.embedding.weight": (vocab, predictor),
        "predictor.mix.weight": (predictor, CONTEXT_SIZE * predictor),
        "predictor.mix.bias": (predictor,),
        "joiner.encoder_projection.weight": (joiner, width),
        "joiner.encoder_projection.bias": (joiner,),
        "joiner.predictor_projection.weight": (joiner, predictor),
        "joiner.output.weight": (vocab, joiner),
        "joiner.output.bias": (vocab,),
    }
    for index, sizes in enumerate(layer_sizes(channels)):
        layer = f"encoder.convolutions.{index}"
        shapes[f"{layer}.weight"] = (sizes.out_channels, KERNEL * KERNEL * sizes.in_channels)
        shapes[f"{layer}.bias"] = (sizes.out_channels,)
    for index in range(encoder.num_layers):
        layer = f"encoder.layers.{index}"
        shapes[f"{layer}.weight_ih"] = (4 * width, width if index else first)
        shapes[f"{layer}.weight_hh"] = (4 * width, width)
        shapes[f"{layer}.bias"] = (4 * width,)
        shapes |= {f"encoder.norms.{index}.{part}": (width,) for part in ("weight", "bias")}
    return shapes


def _check_sizes(sizes: Sequence[int], largest: int) -> None:
    if not all(type(size) is int and 1 <= size <= largest for size in sizes):
        raise ValueError("a width is none")
