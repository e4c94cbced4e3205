"""Models: chunked = whole for every encoder, predictor and joiner against loops, weights that can be replaced."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from pipeline.decoding.greedy import greedy
from pipeline.errors import UserError
from pipeline.models.config import TransducerConfig
from pipeline.models.convolution import Convolutions
from pipeline.models.transducer import Transducer, build_transducer
from tests.reference_convolution import slow_convolution

LSTM = {"name": "lstm", "num_layers": 2, "width": 12, "input_width": 10}
CONVOLUTIONAL = {**LSTM, "channels": (3, 5)}
EMFORMER = {"name": "emformer", "num_layers": 2, "width": 16, "num_heads": 2, "segment_frames": 3,
            "left_context_frames": 6, "right_context_frames": 1}  # fmt: skip
every_encoder = pytest.mark.parametrize(
    "encoder", [LSTM, CONVOLUTIONAL, EMFORMER], ids=["lstm", "convolutional", "emformer"]
)


def tiny(encoder: dict) -> Transducer:
    torch.manual_seed(1)
    settings_ = {"encoder": encoder, "predictor": {"width": 6}, "joiner_width": 8, "num_mel_bins": 4}
    model = build_transducer({**settings_, "vocab_size": 9})
    model.set_statistics(torch.randn(4), torch.rand(4) + 0.5)
    return model.eval()


FROM_THE_START = torch.zeros(2, dtype=torch.long)


@every_encoder
@settings(max_examples=15, deadline=None)
@given(chunks=st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_chunked_equals_whole(encoder, chunks):
    model, total = tiny(encoder), sum(chunks)
    features_BNF = torch.randn(2, total, 4, generator=torch.Generator().manual_seed(total))
    with torch.no_grad():
        whole_BTD, lengths_B = model.encode(features_BNF, torch.full((2,), total), FROM_THE_START)
        state, parts = model.initial_state(2), []
        for piece_BNF in features_BNF.split(chunks, 1):
            part_BTD, state = model.step(piece_BNF, state)
            parts.append(part_BTD)
        parts.append(model.flush(state))
    assert lengths_B.tolist() == [total // 8] * 2
    torch.testing.assert_close(torch.cat(parts, 1), whole_BTD[:, : total // 8], atol=1e-5, rtol=1e-4)


@every_encoder
def test_step_leaves_its_state_alone(encoder):
    model = tiny(encoder)
    with torch.no_grad():
        _, state = model.step(torch.randn(1, 50, 4), model.initial_state(1))
        before, piece_BNF = copy.deepcopy(state), torch.randn(1, 30, 4)
        first_BTD, _ = model.step(piece_BNF, state)
        again_BTD, _ = model.step(piece_BNF, state)
    assert torch.equal(first_BTD, again_BTD)
    assert torch.equal(before.features_BNF, state.features_BNF)


def test_padding_does_not_reach_earlier_frames():
    model = tiny(LSTM)
    features_BNF = torch.randn(1, 64, 4)
    longer_BNF = torch.cat([features_BNF, torch.full((1, 80, 4), 7.0)], 1)
    with torch.no_grad():
        short_BTD, _ = model.encode(features_BNF, torch.tensor([64]), FROM_THE_START[:1])
        long_BTD, _ = model.encode(longer_BNF, torch.tensor([64]), FROM_THE_START[:1])
    torch.testing.assert_close(long_BTD[:, :8], short_BTD)


@pytest.mark.parametrize(("num_mel_bins", "channels"), [(4, (3,)), (7, (3, 5, 2)), (5, (2,) * 6)])
def test_convolutions_equal_loops(num_mel_bins, channels):
    torch.manual_seed(2)
    convolutions = Convolutions(num_mel_bins, channels)
    for parameter in convolutions.parameters():
        parameter.data.add_(0.2)  # or the last of many ReLUs would let nothing through
    stacked_BTF = torch.randn(2, 3, 8 * num_mel_bins)
    expected_BTF = np.empty((2, 3, convolutions.output_width))
    for place in np.ndindex(2, 3):
        x_TFC = stacked_BTF[place].reshape(8, num_mel_bins, 1).numpy()
        for index, layer in enumerate(convolutions):
            weights = (layer.weight.detach().numpy(), layer.bias.detach().numpy())
            x_TFC = slow_convolution(x_TFC, *weights, (1 if index == 0 else 2, 2))
        expected_BTF[place] = x_TFC.ravel()
    found_BTF = convolutions(stacked_BTF).detach().numpy()
    assert found_BTF.max() > 0
    np.testing.assert_allclose(found_BTF, expected_BTF, atol=1e-5)


def test_lstm_layer_equals_torch_lstm():
    layer = tiny(LSTM).encoder.layers[0]
    twin = torch.nn.LSTM(10, 12, batch_first=True)
    twin.weight_ih_l0.data.copy_(layer.weight_ih)
    twin.weight_hh_l0.data.copy_(layer.weight_hh)
    twin.bias_ih_l0.data.copy_(layer.bias)
    twin.bias_hh_l0.data.zero_()
    x_BTD = torch.randn(3, 7, 10)
    expected_BTD, _ = twin(x_BTD)
    torch.testing.assert_close(layer(x_BTD, torch.zeros(3, 12), torch.zeros(3, 12))[0], expected_BTD)


def test_replaced_weights_are_the_ones_in_use():
    """pytorch #65688: a module with a second list of its weights goes on using the old ones."""
    model = tiny(CONVOLUTIONAL)
    inputs = (torch.randn(2, 40, 4), torch.tensor([40, 40]), torch.tensor([[3, 4], [5, 0]]), FROM_THE_START)
    for name in (
        "encoder.layers.1.weight_hh",
        "encoder.input.weight",
        "encoder.convolutions.0.weight",
        "joiner.output.weight",
    ):
        weight = dict(model.named_parameters())[name]
        replaced = (2 * weight).detach().requires_grad_()
        outputs = functional_call(model, {name: replaced}, inputs)
        doubled = copy.deepcopy(model)
        dict(doubled.named_parameters())[name].data.mul_(2)
        for found, expected in zip(outputs, doubled(*inputs), strict=True):
            torch.testing.assert_close(found, expected)
        total = outputs.encoded_BTJ.sum() + outputs.output_weight_VJ.sum()
        assert torch.autograd.grad(total, replaced)[0].abs().sum() > 0


def test_predictor_sees_the_last_two_tokens_of_every_prefix():
    model = tiny(LSTM)
    tokens_BU = torch.tensor([[3, 4, 5], [6, 7, 8]])
    predicted_BUD = model.predict(tokens_BU)
    assert predicted_BUD.shape == (2, 4, 6)
    for b, tokens in enumerate(tokens_BU.tolist()):
        for u in range(4):
            context = ([0, 0] + tokens[:u])[-2:]
            torch.testing.assert_close(predicted_BUD[b, u], model.predict_context(torch.tensor(context)))


def test_greedy_equals_a_loop_over_one_utterance():
    model = tiny(LSTM)
    model.joiner.output.bias.data[0] = -0.3
    features_BNF, lengths_B = torch.randn(4, 96, 4) * 3, torch.tensor([96, 40, 7, 88])
    with torch.no_grad():
        encoded_BTD, frame_lengths_B = model.encode(features_BNF, lengths_B, torch.zeros_like(lengths_B))
        found = greedy(model, encoded_BTD, frame_lengths_B)
        for b, result in enumerate(found):
            tokens, frames, log_prob = [], [], 0.0
            for t in range(int(frame_lengths_B[b])):
                context = torch.tensor(([0, 0] + tokens)[-2:])
                log_probs_V = model.join(encoded_BTD[b, t], model.predict_context(context)).log_softmax(-1)
                symbol = int(log_probs_V.argmax())
                log_prob += float(log_probs_V[symbol])
                if symbol:
                    tokens.append(symbol)
                    frames.append(t)
            assert (result.tokens, result.frames) == (tokens, frames)
            assert result.log_prob == pytest.approx(log_prob, abs=1e-4)
    assert sum(len(result.tokens) for result in found) > 0


def test_frames_before_the_start_are_heard_and_left_out():
    model, lengths_B, start_B = tiny(LSTM), torch.tensor([96, 40, 80]), torch.tensor([5, 0, 10])
    features_BNF = torch.randn(3, 96, 4)
    with torch.no_grad():
        whole_BTD, _ = model.encode(features_BNF, lengths_B, torch.zeros_like(lengths_B))
        late_BTD, frame_lengths_B = model.encode(features_BNF, lengths_B, start_B)
    assert frame_lengths_B.tolist() == [7, 5, 0]
    for b, (start, length) in enumerate(zip(start_B, frame_lengths_B, strict=True)):
        assert torch.equal(late_BTD[b, :length], whole_BTD[b, start : start + length])


def test_greedy_of_nothing():
    model = tiny(LSTM)
    assert greedy(model, torch.zeros(2, 0, 12), torch.tensor([0, 0]))[1].tokens == []


def test_config_round_trip_and_errors():
    for encoder in (CONVOLUTIONAL, EMFORMER):
        config = tiny(encoder).config
        assert TransducerConfig.of(config.as_dict()) == config
        assert TransducerConfig.of(json.loads(json.dumps(config.as_dict()))) == config
    with pytest.raises(UserError, match="width"):
        TransducerConfig.of({"encoder": {"name": "lstm", "num_layers": 1}, "predictor": {"width": 3}})
    with pytest.raises(UserError, match="vocab_size"):
        build_transducer({**config.as_dict(), "vocab_size": None})
