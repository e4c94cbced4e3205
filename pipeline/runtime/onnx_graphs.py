"""A transducer as the three ONNX graphs of sherpa-onnx's streaming LSTM transducer.

Written node by node, so that the file holds the model's arithmetic and nothing of a tracer. Feature statistics are
folded into the first matrix (unless convolutions come before it) and the joiner's two projections lie in encoder and
predictor: a frame and a context are projected once, and the joiner is what is computed for each pair.

    encoder   x (N, T, F), h (L, N, D), c (L, N, D) -> encoder_out (N, T / 8, J), next_h, next_c
    decoder   y (N, 2) int64, the older token first -> decoder_out (N, J)          (its name for the predictor)
    joiner    encoder_out (N, J), decoder_out (N, J) -> logit (N, V)

Source: sherpa-onnx's online-lstm-transducer-model.cc (names, order, metadata); ONNX operators of opset 17.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from pipeline.errors import UserError
from pipeline.features.frames import FEATURES_PER_FRAME
from pipeline.models.lstm_encoder import LSTMEncoder
from pipeline.models.predictor import CONTEXT_SIZE
from pipeline.models.transducer import Transducer

OPSET, IR_VERSION = 17, 8  # of 2022: runtimes that are years old read them


@dataclass
class _Graph:
    """Nodes and initialisers as they are added; every method returns the name of its (first) output."""

    nodes: list = field(default_factory=list)
    initialisers: list = field(default_factory=list)

    def constant(self, name: str, values: np.ndarray) -> str:
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes) -> str:
        return self.add_many(operator, inputs, [output], **attributes)[0]

    def add_many(self, operator: str, inputs: list[str], outputs: list[str], **attributes) -> list[str]:
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return outputs

    def linear(self, x: str, name: str, weight_RC: np.ndarray, bias_R: np.ndarray | None, output: str) -> str:
        """y = x Wᵀ + b. A MatMul, which ONNX Runtime's dynamic quantisation takes, and no Gemm."""
        product = output if bias_R is None else f"{name}.product"
        y = self.add("MatMul", [x, self.constant(f"{name}.weight", weight_RC.T)], product)
        return y if bias_R is None else self.add("Add", [y, self.constant(f"{name}.bias", bias_R)], output)

    def model(
        self, name: str, inputs: list, outputs: list, metadata: Mapping[str, object]
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initialisers)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="sotto")
        helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
        onnx.checker.check_model(model, full_check=True)
        return model


def encoder_graph(model: Transducer, chunk_frames: int) -> onnx.ModelProto:
    """`chunk_frames`: 10 ms frames that a caller feeds at once, a multiple of 8; the graph itself takes any multiple.

    Raises UserError for an encoder that is no LSTM.
    """
    encoder = model.encoder
    if not isinstance(encoder, LSTMEncoder):
        raise UserError(f"encoder {model.config.encoder.name}: only the LSTM encoder can be exported to ONNX")
    num_layers, width = encoder.config.num_layers, encoder.config.width
    graph = _Graph()
    if encoder.convolutions is None:
        shape = np.array([0, -1, FEATURES_PER_FRAME * encoder.num_mel_bins], np.int64)
        x = graph.add("Reshape", ["x", graph.constant("stacked_shape", shape)], "stacked_NTF")
        weight_and_bias = folded_input(model)
    else:
        x = _convolve(graph, model)
        weight_and_bias = _array(encoder.input.weight), _array(encoder.input.bias)
    x = graph.add("Transpose", [x], "stacked_TNF", perm=[1, 0, 2])
    x = graph.linear(x, "encoder.input", *weight_and_bias, "layer_0.input")
    hidden, cell = ([f"{letter}_{index}" for index in range(num_layers)] for letter in "hc")
    for name, parts in (("h", hidden), ("c", cell)):
        ones = graph.constant(f"{name}_split", np.ones(num_layers, np.int64))
        graph.add_many("Split", [name, ones], parts, axis=0)
    axis = graph.constant("direction", np.array([1], np.int64))
    for index, (layer, norm) in enumerate(zip(encoder.layers, encoder.norms, strict=True)):
        here = f"layer_{index}"
        bias_2D = np.concatenate(
            [_gates(layer.bias), np.zeros(4 * width, np.float32)]
        )  # of input, of recurrence
        weights = [
            graph.constant(f"{here}.weight_ih", _gates(layer.weight_ih)[None]),
            graph.constant(f"{here}.weight_hh", _gates(layer.weight_hh)[None]),
            graph.constant(f"{here}.bias", bias_2D[None]),
        ]
        inputs = [x, *weights, "", hidden[index], cell[index]]
        outputs = [f"{here}.y", f"{here}.next_h", f"{here}.next_c"]
        y = graph.add_many("LSTM", inputs, outputs, hidden_size=width)[0]
        y = graph.add("Squeeze", [y, axis], f"{here}.y_TND")
        y = y if index == 0 else graph.add("Add", [x, y], f"{here}.sum")
        scale = graph.constant(f"{here}.norm.weight", _array(norm.weight))
        shift = graph.constant(f"{here}.norm.bias", _array(norm.bias))
        x = graph.add("LayerNormalization", [y, scale, shift], f"{here}.output", axis=-1, epsilon=norm.eps)
    for name in "hc":
        graph.add("Concat", [f"layer_{i}.next_{name}" for i in range(num_layers)], f"next_{name}", axis=0)
    projection = model.joiner.encoder_projection
    x = graph.linear(x, "projection", _array(projection.weight), _array(projection.bias), "encoded_TNJ")
    graph.add("Transpose", [x], "encoder_out", perm=[1, 0, 2])
    state = [num_layers, "N", width]
    inputs = [_floats("x", ["N", "T", encoder.num_mel_bins]), _floats("h", state), _floats("c", state)]
    outputs = [_floats("encoder_out", ["N", "U", model.config.joiner_width])]
    outputs += [_floats("next_h", state), _floats("next_c", state)]
    metadata = {
        "model_type": "lstm",
        "num_encoder_layers": num_layers,
        "T": chunk_frames,
        "decode_chunk_len": chunk_frames,
        "rnn_hidden_size": width,
        "d_model": width,
        "feature_dim": encoder.num_mel_bins,  # for people: sherpa-onnx is told by its caller
    }
    return graph.model("encoder", inputs, outputs, metadata)


def predictor_graph(model: Transducer) -> onnx.ModelProto:
    predictor, graph = model.predictor, _Graph()
    vocab_size, width = predictor.embedding.weight.shape
    embedding = graph.constant("embedding", _array(predictor.embedding.weight))
    shape = graph.constant("shape", np.array([0, CONTEXT_SIZE * width], np.int64))
    blank = graph.constant("blank", np.array(0, np.int64))
    tokens = graph.add("Max", ["y", blank], "tokens_N2")  # sherpa-onnx begins with the tokens (-1, 0)
    x = graph.add("Gather", [embedding, tokens], "embedded_N2D")
    x = graph.add("Reshape", [x, shape], "embedded_ND")
    x = graph.linear(x, "mix", _array(predictor.mix.weight), _array(predictor.mix.bias), "mixed")
    x = graph.add("Tanh", [x], "predicted")
    graph.linear(x, "projection", _array(model.joiner.predictor_projection.weight), None, "decoder_out")
    inputs = [helper.make_tensor_value_info("y", TensorProto.INT64, ["N", CONTEXT_SIZE])]
    outputs = [_floats("decoder_out", ["N", model.config.joiner_width])]
    metadata = {"vocab_size": vocab_size, "context_size": CONTEXT_SIZE}
    return graph.model("decoder", inputs, outputs, metadata)


def joiner_graph(model: Transducer) -> onnx.ModelProto:
    output, width, graph = model.joiner.output, model.config.joiner_width, _Graph()
    x = graph.add("Add", ["encoder_out", "decoder_out"], "sum")
    x = graph.add("Tanh", [x], "hidden")
    graph.linear(x, "output", _array(output.weight), _array(output.bias), "logit")
    inputs = [_floats("encoder_out", ["N", width]), _floats("decoder_out", ["N", width])]
    return graph.model(
        "joiner", inputs, [_floats("logit", ["N", output.out_features])], {"joiner_dim": width}
    )


def folded_input(model: Transducer) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the input layer for features as they are: W ((x - m) s) + b = (W s) x + (b - W s m)."""
    layer = model.encoder.input
    scale_F, mean_F = (
        np.tile(_array(values).astype(np.float64), FEATURES_PER_FRAME)
        for values in (model.feature_scale_F, model.feature_mean_F)
    )
    weight_RF = _array(layer.weight).astype(np.float64) * scale_F
    bias_R = _array(layer.bias).astype(np.float64) - weight_RF @ mean_F
    return weight_RF.astype(np.float32), bias_R.astype(np.float32)


def _convolve(graph: _Graph, model: Transducer) -> str:
    """The convolutions' output (N, T / 8, F'). Statistics come first: borders are padded with zeros after them."""
    convolutions = model.encoder.convolutions
    x = graph.add("Sub", ["x", graph.constant("mean", _array(model.feature_mean_F))], "centred")
    x = graph.add("Mul", [x, graph.constant("scale", _array(model.feature_scale_F))], "normalised")
    shape = np.array([-1, 1, FEATURES_PER_FRAME, model.encoder.num_mel_bins], np.int64)
    x = graph.add("Reshape", [x, graph.constant("frame_shape", shape)], "frames_MCTF")
    for index, layer in enumerate(convolutions):
        here = f"convolution_{index}"
        weights = [
            graph.constant(f"{here}.weight", _array(layer.kernel_OCTF())),
            graph.constant(f"{here}.bias", _array(layer.bias)),
        ]
        x = graph.add("Conv", [x, *weights], f"{here}.sum", strides=layer.stride, pads=[1, 1, 1, 1])
        x = graph.add("Relu", [x], f"{here}.output")
    x = graph.add("Transpose", [x], "convolved_MTFC", perm=[0, 2, 3, 1])
    batch = graph.add("Shape", ["x"], "batch", end=1)
    rest = graph.constant("convolved_rest", np.array([-1, convolutions.output_width], np.int64))
    shape = graph.add("Concat", [batch, rest], "convolved_shape", axis=0)
    return graph.add("Reshape", [x, shape], "convolved_NTF")


def _gates(tensor: Tensor) -> np.ndarray:
    """Rows in torch's order of gates (i, f, g, o) -> ONNX's (i, o, f, g)."""
    i, f, g, o = np.split(_array(tensor), 4)
    return np.concatenate([i, o, f, g])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _floats(name: str, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
