"""Zeros and steps by sensitivity: the allocation against its slow twin, the sensitivities against one by one."""

import pytest
import torch

from pipeline.compression import allocation, quantizers
from pipeline.losses.rnnt import transducer_loss
from pipeline.models.transducer import build_transducer
from pipeline.training.objectives import objectives
from pipeline.training.sensitivity import squared_gradients
from tests import reference_allocation as reference
from tests.test_compress_training import MODEL, FourBatches


def drawn(seed=0):
    """Three matrices that matter differently."""
    torch.manual_seed(seed)
    weights = {name: torch.randn(shape) for name, shape in (("a", (6, 20)), ("b", (4, 9)), ("c", (5, 16)))}
    scale = {"a": 1.0, "b": 30.0, "c": 0.1}
    return weights, {name: scale[name] * torch.rand(w.shape) ** 2 for name, w in weights.items()}


def listed(matrices):
    return {name: matrix.tolist() for name, matrix in matrices.items()}


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.9])
def test_zeros_go_where_they_cost_least(sparsity):
    weights, sensitivities = drawn()
    shares = allocation.allocate_zeros(weights, sensitivities, sparsity)
    assert shares == pytest.approx(reference.zeros(listed(weights), listed(sensitivities), sparsity))
    zeros = sum(shares[name] * w.numel() for name, w in weights.items())
    total = sum(w.numel() for w in weights.values())
    assert sparsity * total - 1e-6 <= zeros <= sparsity * total + 6
    if sparsity == 0.5:
        assert shares["c"] > shares["a"] > shares["b"]


@pytest.mark.parametrize("bits", [0.8, 1.7, 2.6])
def test_steps_cost_no_more_than_a_scan_of_every_price_finds(bits):
    weights, sensitivities = drawn()
    weight, felt = weights["a"] * (weights["a"].abs() > 0.4), sensitivities["a"]
    (step,) = allocation.allocate_steps({"a": weight}, {"a": felt}, 7, bits).values()
    assert reference.matrix_bits(weight.tolist(), step.tolist(), 7) <= bits
    felt_by_row = allocation.row_sensitivity(felt, weight).tolist()
    start = quantizers.nearest_index(quantizers.min_max_step(weight, 1)).tolist()
    candidates = [quantizers.step_of_index(torch.arange(index - 46, index + 10)).tolist() for index in start]
    least = reference.least_cost(weight.tolist(), felt_by_row, candidates, 7, bits)
    rows = zip(weight.tolist(), felt_by_row, step.tolist(), strict=True)
    assert sum(reference.row_cost(row, felt, s, 7) for row, felt, s in rows) <= 1.001 * least


def test_bits_are_kept_over_all_matrices_and_beat_equal_levels():
    weights, sensitivities = drawn(1)
    equal = {name: quantizers.mse_step(w, 3) for name, w in weights.items()}
    spent = total_bits(weights, equal, 3)
    chosen = allocation.allocate_steps(weights, sensitivities, 15, spent)
    assert total_bits(weights, chosen, 15) <= spent
    assert total_cost(weights, sensitivities, chosen, 15) < 0.6 * total_cost(weights, sensitivities, equal, 3)
    finest = allocation.allocate_steps(weights, sensitivities, 15, 8.0)
    for name, step in finest.items():
        assert quantizers.index_of_step(step).shape == (weights[name].shape[0],)


def test_rows_of_zeros_and_of_no_sensitivity_are_no_trouble():
    weights = {"a": torch.zeros(3, 5), "b": torch.randn(2, 4, generator=torch.Generator().manual_seed(0))}
    nothing = {name: torch.zeros_like(w) for name, w in weights.items()}
    steps = allocation.allocate_steps(weights, nothing, 3, 1.0)
    assert all((step > 0).all() and step.isfinite().all() for step in steps.values())
    shares = allocation.allocate_zeros(weights, nothing, 0.5)
    assert 15 * shares["a"] + 8 * shares["b"] >= 11.5


def test_sensitivity_is_the_mean_of_the_batches_squared_gradients():
    torch.manual_seed(0)
    model = build_transducer(MODEL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = FourBatches().batches[:2]
    found = squared_gradients(model, objectives({}, has_teacher=False), batches)
    assert all(p.grad is None for p in model.parameters())
    expected = dict.fromkeys(found, 0.0)
    model.eval()
    for batch in batches:
        model.zero_grad()
        outputs = model(batch.features_BNF, batch.feature_lengths_B, batch.tokens_BU, batch.start_frames_B)
        logits_BTUV = model.joiner.output(
            torch.tanh(outputs.encoded_BTJ[:, :, None] + outputs.predicted_BUJ[:, None])
        )
        log_probs_BTUV = logits_BTUV.log_softmax(-1)
        ids_BTU1 = batch.tokens_BU[:, None, :, None].expand(-1, log_probs_BTUV.shape[1], -1, -1)
        log_label_BTU = torch.zeros_like(log_probs_BTUV[..., 0])
        log_label_BTU[:, :, :-1] = log_probs_BTUV[:, :, :-1].gather(3, ids_BTU1)[..., 0]
        lengths = outputs.frame_lengths_B, batch.token_lengths_B
        transducer_loss(log_probs_BTUV[..., 0], log_label_BTU, *lengths, 0.0).mean().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected[name] + parameter.grad.square() / 2
    for name, value in found.items():
        torch.testing.assert_close(value, torch.zeros_like(value) + expected[name], rtol=1e-3, atol=1e-9)
    assert found["encoder.layers.0.weight_hh"].sum() > 0 == found["ctc_head.weight"].sum()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def total_bits(weights, steps, top):
    """Entropy a weight over all matrices."""
    bits = sum(
        reference.matrix_bits(w.tolist(), steps[name].tolist(), top) * w.numel()
        for name, w in weights.items()
    )
    return bits / sum(w.numel() for w in weights.values())


def total_cost(weights, sensitivities, steps, top):
    return sum(
        float(
            (
                sensitivities[name]
                * (quantizers.integers(w, steps[name], top) * steps[name][:, None] - w) ** 2
            ).sum()
        )
        for name, w in weights.items()
    )
