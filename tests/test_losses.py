"""Losses against their slow twins, gradients against finite differences, padding against none."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.losses.distillation import best_path_kl, lattice_kl
from pipeline.losses.rnnt import (
    best_alignment,
    fused_joiner,
    label_log_probs,
    lattice_nodes,
    occupancies,
    rnnt_loss,
    too_short,
    transducer_loss,
)
from tests import reference_losses as twin

FRAMES, LABELS = torch.tensor([5, 3, 4, 2, 2]), torch.tensor([3, 2, 0, 2, 3])  # the last one is too short
POSSIBLE = [0, 1, 2, 3]
T, U, V, D, K = 5, 4, 6, 7, 3


def scores(seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Blank and label log-probabilities that leave room for other tokens, (B, T, U)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(FRAMES), T, U, 3, generator=generator, dtype=dtype).log_softmax(-1)
    return logits[..., 0].clone().requires_grad_(), logits[..., 1].clone().requires_grad_()


def joiner_inputs(dtype=torch.float64) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (len(FRAMES), T, D), (len(FRAMES), U, D), (V, D), (V,)
    weights = [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]
    return weights, torch.randint(1, V, (len(FRAMES), U - 1), generator=generator)


# ---- transducer loss ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 10_000), st.sampled_from([0.3, 3.0, 30.0]))
def test_loss_equals_all_alignments_and_the_hand_written_loop(num_frames, labels, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    blank, label = -spread * torch.rand(
        2, 1, num_frames, labels + 1, generator=generator, dtype=torch.float64
    )
    lengths = torch.tensor([num_frames]), torch.tensor([labels])
    loss = transducer_loss(blank, label, *lengths).item()
    if labels > num_frames:
        assert loss == 0.0
        return
    assert loss == pytest.approx(twin.looped_loss(blank[0], label[0], num_frames, labels), abs=1e-9)
    slow = twin.enumerated_loss(blank[0], label[0], num_frames, labels, "one_per_frame").item()
    assert loss == pytest.approx(slow, abs=1e-9)


def test_gradients_equal_finite_differences_and_those_of_the_enumeration():
    blank, label = scores()
    assert torch.autograd.gradcheck(lambda *x: transducer_loss(*x, FRAMES, LABELS), (blank, label))
    ours = torch.autograd.grad(transducer_loss(blank, label, FRAMES, LABELS)[POSSIBLE].sum(), (blank, label))
    slow = sum(
        twin.enumerated_loss(blank[b], label[b], int(FRAMES[b]), int(LABELS[b]), "one_per_frame")
        for b in POSSIBLE
    )
    for mine, theirs in zip(ours, torch.autograd.grad(slow, (blank, label)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_gradient_scales_with_the_weight_of_each_utterance():
    blank, label = scores()
    weight_B = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0], dtype=torch.float64)
    plain = torch.autograd.grad(transducer_loss(blank, label, FRAMES, LABELS).sum(), label)[0]
    weighted = torch.autograd.grad((transducer_loss(blank, label, FRAMES, LABELS) * weight_B).sum(), label)[0]
    torch.testing.assert_close(weighted, plain * weight_B[:, None, None])


def test_garbage_in_padding_and_longer_padding_change_nothing():
    blank, label = scores()
    inside = (torch.arange(T) < FRAMES[:, None])[:, :, None]
    u_U, labels_B11 = torch.arange(U), LABELS[:, None, None]
    dirty_blank = blank.detach().masked_fill(~(inside & (u_U <= labels_B11)), torch.nan)
    dirty_label = label.detach().masked_fill(~(inside & (u_U < labels_B11)), torch.inf)
    dirty = [
        torch.nn.functional.pad(x, (0, 2, 0, 3), value=torch.nan).requires_grad_()
        for x in (dirty_blank, dirty_label)
    ]
    clean_loss = transducer_loss(blank, label, FRAMES, LABELS)
    loss = transducer_loss(*dirty, FRAMES, LABELS)
    torch.testing.assert_close(loss, clean_loss, rtol=0, atol=0)
    grads = torch.autograd.grad(loss.sum(), dirty)
    for ours, theirs in zip(grads, torch.autograd.grad(clean_loss.sum(), (blank, label)), strict=True):
        torch.testing.assert_close(ours[:, :T, :U], theirs)
        assert ours[:, T:].abs().sum() == 0 and ours[:, :, U:].abs().sum() == 0
    on_path = lattice_nodes(FRAMES, LABELS, T, U)
    assert torch.equal((grads[0] + grads[1])[:, :T, :U] != 0, on_path)


def test_an_utterance_that_is_too_short_gives_zero_and_is_named():
    blank, label = scores()
    loss = transducer_loss(blank, label, FRAMES, LABELS)
    assert too_short(FRAMES, LABELS).tolist() == [False, False, False, False, True]
    assert loss[-1] == 0 and (loss[:-1] > 0).all()
    for grad in torch.autograd.grad(loss.sum(), (blank, label)):
        assert grad[-1].abs().sum() == 0 and grad.isfinite().all()


def test_a_diverged_model_is_not_hidden():
    blank, label = (x.detach().clone() for x in scores())
    blank[0, 0, 0] = torch.nan
    assert transducer_loss(blank, label, FRAMES, LABELS)[0].isnan()


def test_extreme_scores_stay_finite():
    blank, label = (torch.full_like(x, -1e4, dtype=torch.float32).requires_grad_() for x in scores())
    loss = transducer_loss(blank, label, FRAMES, LABELS)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), (blank, label)))


def test_fastemit_scales_label_gradients_alone():
    blank, label = scores()
    plain = torch.autograd.grad(transducer_loss(blank, label, FRAMES, LABELS).sum(), (blank, label))
    loss = transducer_loss(blank, label, FRAMES, LABELS, fastemit=0.5)
    torch.testing.assert_close(loss, transducer_loss(blank, label, FRAMES, LABELS))
    emit = torch.autograd.grad(loss.sum(), (blank, label))
    torch.testing.assert_close(emit[0], plain[0])
    torch.testing.assert_close(emit[1], 1.5 * plain[1])


def test_occupancies_are_posteriors():
    blank, label = occupancies(*scores(), FRAMES, LABELS)
    for b in POSSIBLE:
        frames, labels = int(FRAMES[b]), int(LABELS[b])
        torch.testing.assert_close(
            (blank + label)[b, :frames].sum(1), torch.ones(frames, dtype=torch.float64)
        )
        torch.testing.assert_close(label[b, :, :labels].sum(0), torch.ones(labels, dtype=torch.float64))
    assert blank[-1].abs().sum() == 0 and label[-1].abs().sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_best_alignment_equals_brute_force(seed):
    blank, label = (3 * x.detach() for x in scores(seed))
    u_BT = best_alignment(blank, label, FRAMES, LABELS)
    for b in POSSIBLE:
        frames, labels = int(FRAMES[b]), int(LABELS[b])
        assert u_BT[b, :frames].tolist() == twin.enumerated_alignment(blank[b], label[b], frames, labels)
        assert (u_BT[b, frames:] == labels).all()


# ---- one signature, two topologies, two backends -----------------------------------------------------------


@pytest.mark.parametrize("topology", ["one_per_frame", "regular"])
def test_rnnt_loss_from_logits_equals_all_alignments(topology):
    weights, tokens = joiner_inputs()
    logits = torch.randn(
        len(FRAMES), T, U, V, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    loss = rnnt_loss(logits, tokens, FRAMES, LABELS, topology=topology)
    blank, label = label_log_probs(logits, tokens)
    for b in POSSIBLE:
        slow = twin.enumerated_loss(blank[b], label[b], int(FRAMES[b]), int(LABELS[b]), topology)
        torch.testing.assert_close(loss[b], slow)


@pytest.mark.parametrize("fastemit", [0.0, 0.1])
def test_torchaudio_agrees_on_the_regular_topology(fastemit):
    _, tokens = joiner_inputs()
    logits = torch.randn(len(FRAMES), T, U, V, generator=torch.Generator().manual_seed(4)).requires_grad_()
    results = []
    for backend in ("recursion", "torchaudio"):
        loss = rnnt_loss(
            logits, tokens, FRAMES, LABELS, topology="regular", backend=backend, fastemit=fastemit
        )
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "choice",
    [{"topology": "regulr"}, {"backend": "k2"}, {"backend": "torchaudio"}],
    ids=["unknown topology", "unknown backend", "backend without the topology"],
)
def test_an_impossible_choice_is_one_sentence(choice):
    logits, tokens = torch.zeros(1, 2, 2, 3), torch.ones(1, 1, dtype=torch.long)
    with pytest.raises(UserError, match="use "):
        rnnt_loss(logits, tokens, torch.tensor([2]), torch.tensor([1]), **choice)


# ---- fused joiner ------------------------------------------------------------------------------------------


def test_fused_joiner_equals_its_formula_at_every_node():
    weights, tokens = joiner_inputs()
    mix = torch.randn(2, len(FRAMES), T, U, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for joiner in (fused_joiner, twin.joined_log_probs):
        both = torch.stack(joiner(*weights, tokens))
        results.append((both.detach(), *torch.autograd.grad((both * mix).sum(), weights)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_fused_joiner_gradcheck():
    weights, tokens = joiner_inputs()
    assert torch.autograd.gradcheck(lambda *w: fused_joiner(*w, tokens, FRAMES, LABELS), weights)


@pytest.mark.parametrize("chunk", [1, 3])
def test_joiner_and_loss_together_equal_autograd_for_every_chunk_size(chunk, monkeypatch):
    monkeypatch.setattr("pipeline.losses.fused_joiner.CHUNK_NODES", chunk)
    monkeypatch.setattr("pipeline.losses.fused_joiner.CHUNK_UTTERANCES", {"cpu": chunk})
    weights, tokens = joiner_inputs()
    packed = fused_joiner(*weights, tokens, FRAMES, LABELS)
    losses = [
        transducer_loss(*packed, FRAMES, LABELS),
        transducer_loss(*twin.joined_log_probs(*weights, tokens), FRAMES, LABELS),
    ]
    torch.testing.assert_close(*losses)
    ours, theirs = (torch.autograd.grad(loss.sum(), weights) for loss in losses)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_fused_joiner_under_functional_call_trains_the_weights_it_is_given():
    class Joiner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.output = torch.nn.Linear(D, V)

        def forward(self, encoded, predicted, tokens):
            return fused_joiner(encoded, predicted, self.output.weight, self.output.bias, tokens)

    (encoded, predicted, weight, _), tokens = joiner_inputs(torch.float32)
    joiner = Joiner()
    swapped = torch.func.functional_call(joiner, {"output.weight": 2 * weight}, (encoded, predicted, tokens))
    (grad,) = torch.autograd.grad(swapped[1].sum(), weight)
    bias = joiner.output.bias
    slow = twin.joined_log_probs(encoded, predicted, 2 * weight, bias, tokens)[1].sum()
    torch.testing.assert_close(grad, torch.autograd.grad(slow, weight)[0], rtol=1e-4, atol=1e-5)


def test_fused_joiner_computes_in_float32_under_autocast():
    weights, tokens = joiner_inputs(torch.float32)
    expected = torch.stack(fused_joiner(*weights, tokens))
    with torch.autocast("cpu", torch.bfloat16):
        result = torch.stack(fused_joiner(*weights, tokens))
        mixed = fused_joiner(weights[0].bfloat16(), *weights[1:], tokens)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert mixed[0].dtype == torch.float32


def test_fused_joiner_multiplies_in_bfloat16_what_comes_in_bfloat16():
    weights, tokens = joiner_inputs(torch.float32)
    exact = transducer_loss(*fused_joiner(*weights, tokens, FRAMES, LABELS), FRAMES, LABELS)
    sides = [side.detach().bfloat16().requires_grad_() for side in weights[:2]]
    scores = fused_joiner(*sides, *weights[2:], tokens, FRAMES, LABELS)
    loss = transducer_loss(*scores, FRAMES, LABELS)
    assert scores[0].dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.01, atol=0)
    ours = torch.autograd.grad(loss.sum(), [*sides, *weights[2:]])
    theirs = torch.autograd.grad(exact.sum(), weights)
    assert [grad.dtype for grad in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.nn.functional.cosine_similarity(mine.float().flatten(), other.flatten(), dim=0) > 0.999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_joiner_loss_and_alignment_agree_on_a_gpu():
    results = []
    for device in ("cpu", "cuda"):
        weights, tokens = joiner_inputs()
        weights = [w.detach().to(device).requires_grad_() for w in weights]
        lengths = FRAMES.to(device), LABELS.to(device)
        packed = fused_joiner(*weights, tokens.to(device), *lengths)
        grads = torch.autograd.grad(transducer_loss(*packed, *lengths, fastemit=0.1).sum(), weights)
        divergence = lattice_kl(*packed, *(x / 2 for x in packed), *lengths)
        results.append([x.cpu() for x in (*grads, best_alignment(*packed, *lengths), divergence)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


# ---- distillation ------------------------------------------------------------------------------------------


def test_lattice_kl_equals_the_loop_and_ignores_padding():
    student, teacher = scores(0), scores(1)
    loss = lattice_kl(*student, *teacher, FRAMES, LABELS)
    for b, (frames, labels) in enumerate(zip(FRAMES.tolist(), LABELS.tolist(), strict=True)):
        one = [tuple(x[b] for x in side) for side in (student, teacher)]
        assert loss[b].item() == pytest.approx(twin.looped_lattice_kl(*one, frames, labels), abs=1e-9)
    nodes = lattice_nodes(FRAMES, LABELS, T, U)
    dirty = [x.detach().masked_fill(~nodes, torch.nan).requires_grad_() for x in student]
    dirty_loss = lattice_kl(
        *dirty, *(x.detach().masked_fill(~nodes, torch.nan) for x in teacher), FRAMES, LABELS
    )
    torch.testing.assert_close(dirty_loss, loss)
    assert all(g.isfinite().all() for g in torch.autograd.grad(dirty_loss.sum(), dirty))


def test_lattice_kl_is_zero_for_equals_only_and_teaches_the_student_alone():
    student, teacher = scores(0), scores(1)
    assert lattice_kl(*student, *student, FRAMES, LABELS).abs().max() == 0
    loss = lattice_kl(*student, *teacher, FRAMES, LABELS)
    assert (loss[POSSIBLE] > 0).all() and loss[-1] == 0
    assert torch.autograd.grad(loss.sum(), teacher, allow_unused=True) == (None, None)
    assert torch.autograd.gradcheck(lambda *x: lattice_kl(*x, *teacher, FRAMES, LABELS), student)


def test_lattice_kl_leaves_out_nodes_that_the_teacher_did_not_visit():
    """Utterance 0 at another tempo: node (3, 1) was on no path before. The others are as if it were not there."""
    student, teacher = scores(0), scores(1)
    unvisited = [x.detach().clone() for x in teacher]
    for side in unvisited:
        side[0, 3, 1] = 0.0
    loss = lattice_kl(*student, *unvisited, FRAMES, LABELS)
    one = [tuple(x[0] for x in side) for side in (student, teacher)]
    expected = twin.looped_lattice_kl(*one, 5, 3, unvisited={(3, 1)})
    assert loss[0].item() == pytest.approx(expected, abs=1e-9)
    assert all(g[0, 3, 1] == 0 for g in torch.autograd.grad(loss.sum(), student))


def test_lattice_kl_takes_half_precision_targets_and_sure_students():
    student, teacher = scores(0, torch.float32), scores(1, torch.float32)
    exact = lattice_kl(*student, *teacher, FRAMES, LABELS)
    torch.testing.assert_close(
        lattice_kl(*student, *(x.half() for x in teacher), FRAMES, LABELS), exact, rtol=1e-2, atol=1e-3
    )
    sure = [
        torch.zeros_like(student[0]).requires_grad_(),
        torch.full_like(student[1], -60.0).requires_grad_(),
    ]
    loss = lattice_kl(*sure, *teacher, FRAMES, LABELS)
    assert loss.isfinite().all() and (loss >= 0).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), sure))


def path_targets() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits, teacher = torch.randn(2, len(FRAMES), T, V, generator=generator, dtype=torch.float64)
    top = teacher.log_softmax(-1).topk(K)
    return logits.requires_grad_(), top.indices, top.values


def test_best_path_kl_equals_the_loop_and_ignores_padding():
    logits, ids, log_probs = path_targets()
    loss = best_path_kl(logits, ids, log_probs, FRAMES)
    for b, frames in enumerate(FRAMES.tolist()):
        slow = twin.looped_best_path_kl(logits[b], ids[b], log_probs[b], frames)
        assert loss[b].item() == pytest.approx(slow, abs=1e-9)
    padding = (torch.arange(T) >= FRAMES[:, None])[..., None]
    dirty = logits.detach().masked_fill(padding, torch.nan).requires_grad_()
    dirty_loss = best_path_kl(
        dirty, ids.masked_fill(padding, 9999), log_probs.masked_fill(padding, torch.nan), FRAMES
    )
    torch.testing.assert_close(dirty_loss, loss)
    assert torch.autograd.grad(dirty_loss.sum(), dirty)[0].isfinite().all()
    assert best_path_kl(logits, ids, log_probs, torch.zeros_like(FRAMES)).abs().sum() == 0


def test_best_path_kl_is_zero_for_equals_only():
    logits, ids, log_probs = path_targets()
    own = logits.detach().log_softmax(-1)
    assert best_path_kl(logits, ids, own.gather(-1, ids), FRAMES).abs().max() < 1e-12
    assert (best_path_kl(logits, ids, log_probs, FRAMES) > 1e-3).all()
    # All tokens kept: the remainder is empty on both sides and the divergence is the whole one.
    everything = torch.arange(V).expand(len(FRAMES), T, V)
    assert best_path_kl(logits, everything, own, FRAMES).abs().max() < 1e-12
    assert torch.autograd.gradcheck(lambda x: best_path_kl(x, ids, log_probs, FRAMES), (logits,))


def test_best_path_kl_takes_half_precision_and_impossible_tokens():
    logits, ids, log_probs = path_targets()
    exact = best_path_kl(logits, ids, log_probs, FRAMES)
    torch.testing.assert_close(
        best_path_kl(logits, ids, log_probs.half(), FRAMES), exact, rtol=1e-2, atol=1e-3
    )
    sparse = log_probs.clone()
    sparse[..., -1] = -torch.inf
    loss = best_path_kl(logits, ids, sparse, FRAMES)
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()
