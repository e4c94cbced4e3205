"""Training: eight utterances learnt by heart, targets kept on disk, labelling that resumes, errors that name a loss."""

import json
import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from pipeline.corpus.batch import Batch
from pipeline.corpus.datamodule import collate
from pipeline.corpus.shards import Utterance, load_cuts, write_split
from pipeline.corpus.teacher_targets import Target, TargetStore, write_selection, write_shard
from pipeline.corpus.tokenizer import Tokenizer, train_tokenizer
from pipeline.decoding.greedy import greedy
from pipeline.errors import UserError
from pipeline.features.augment import SpecAugmentConfig
from pipeline.features.fbank import FbankConfig
from pipeline.losses.rnnt import label_log_probs
from pipeline.models.transducer import build_transducer
from pipeline.training.config import TrainerConfig
from pipeline.training.fit import ClipGradients
from pipeline.training.labelling import label_batch, label_pool
from pipeline.training.objectives import StepView, objectives
from pipeline.training.precision import lightning_precision
from pipeline.training.recipe import take_encoder
from pipeline.training.task import TransducerTask
from tests.conftest import ROOT

SETTINGS = {
    "encoder": {"name": "lstm", "num_layers": 2, "width": 48, "input_width": 32},
    "predictor": {"width": 16},
    "joiner_width": 32,
    "num_mel_bins": 4,
    "vocab_size": 12,
}


TEXTS = ["turn on the light", "call maria", "play some jazz", "what's next", "set a timer for ten minutes"]


def render_noise(number: int) -> tuple[Utterance, np.ndarray]:
    samples_S = np.random.default_rng(number).standard_normal(40_000 + 3_000 * number) * 0.1
    return Utterance(f"utt{number}", TEXTS[number], f"s{number}", "en"), samples_S.astype(np.float32)


@pytest.fixture
def cuts_and_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuts") / "train"
    write_split(folder, range(5), render_noise, with_audio=False, fbank_config=FbankConfig())
    return list(load_cuts(folder)), Tokenizer(train_tokenizer(TEXTS, 40))


def batch_of_eight() -> Batch:
    generator = torch.Generator().manual_seed(3)
    token_lengths_B = torch.tensor([5, 4, 5, 3, 2, 5, 1, 4])
    tokens_BU = torch.randint(2, 12, (8, 5), generator=generator)
    tokens_BU *= torch.arange(5) < token_lengths_B[:, None]
    features_BNF = torch.randn(8, 80, 4, generator=generator)
    lengths_B, start_B = (
        torch.tensor([80, 72, 80, 64, 56, 80, 40, 72]),
        torch.tensor([0, 1, 2, 0, 0, 0, 0, 3]),
    )
    return Batch(
        features_BNF, lengths_B, start_B, tokens_BU, token_lengths_B, torch.zeros(8, 40, dtype=torch.long), []
    )


def losses_of(model, batch: Batch, chosen) -> torch.Tensor:
    outputs = model(batch.features_BNF, batch.feature_lengths_B, batch.tokens_BU, batch.start_frames_B)
    step = StepView.of(batch, outputs)
    return sum(weight * function(step).mean() for _, weight, function in chosen)


def test_overfit_eight_utterances():
    torch.manual_seed(0)
    model, batch = build_transducer(SETTINGS), batch_of_eight()
    chosen = objectives({"ctc": 0.3, "fastemit": 0.001}, has_teacher=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        losses_of(model, batch, chosen).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    encoded_BTD, lengths_B = model.eval().encode(
        batch.features_BNF, batch.feature_lengths_B, batch.start_frames_B
    )
    for b, result in enumerate(greedy(model, encoded_BTD, lengths_B)):
        assert result.tokens == batch.tokens_BU[b, : batch.token_lengths_B[b]].tolist()


class NormsAfterClipping(pl.Callback):
    def __init__(self):
        self.norms: list[float] = []

    def on_before_zero_grad(self, trainer, module, optimizer):
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        if grads:
            self.norms.append(float(torch.nn.utils.get_total_norm(grads)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_clipped_in_bfloat16_too(precision, cuts_and_tokenizer):
    """Lightning refused to, so that no training began on a processor or GPU with bfloat16."""
    tokenizer = cuts_and_tokenizer[1]
    model, batch = build_transducer(SETTINGS), batch_of_eight()
    chosen = objectives({"ctc": 0.3}, has_teacher=False)
    task = TransducerTask(model, chosen, SpecAugmentConfig(0, 0, 0, 0), TrainerConfig(), tokenizer, 4, 1)
    seen = NormsAfterClipping()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=lightning_precision(precision),
        logger=False,
        callbacks=[ClipGradients(0.5), seen],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, train_dataloaders=DataLoader([batch] * 3, batch_size=None))
    assert len(seen.norms) >= 2 and seen.norms[-1] == pytest.approx(0.5, rel=1e-3)


def test_distillation_from_itself_is_zero_and_from_another_is_not(cuts_and_tokenizer):
    cuts, tokenizer = cuts_and_tokenizer
    settings = {**SETTINGS, "num_mel_bins": 64, "vocab_size": tokenizer.vocab_size}
    torch.manual_seed(0)
    teacher, other = build_transducer(settings).eval(), build_transducer(settings).eval()
    targets = list(label_batch(teacher, tokenizer, cuts, top_k=4))
    store = object.__new__(TargetStore)
    store._targets = {target.id: target for target in targets}
    batch = collate(cuts, lambda cut: store[cut.id].labels, targets=store)
    parts = {name: function for name, _, function in objectives({"lattice": 1, "best_path": 1}, True)}
    for model, is_same in ((teacher, True), (other, False)):
        with torch.no_grad():
            step = StepView.of(
                batch,
                model(batch.features_BNF, batch.feature_lengths_B, batch.tokens_BU, batch.start_frames_B),
            )
            for name in ("lattice", "best_path"):
                value = float(parts[name](step).mean())
                assert (abs(value) < 1e-2) == is_same, (name, value)  # float16 targets: not exactly 0


def test_labels_of_the_teacher(cuts_and_tokenizer):
    """Transcripts stay, other utterances get what greedy search hears; the path's scores match the lattice."""
    cuts, tokenizer = cuts_and_tokenizer
    torch.manual_seed(0)
    model = build_transducer({**SETTINGS, "num_mel_bins": 64, "vocab_size": tokenizer.vocab_size}).eval()
    hidden = cuts[0].with_id("hidden")
    hidden.supervisions[0].text = None
    labelled, pseudo = label_batch(model, tokenizer, [cuts[1], hidden], top_k=3)
    assert labelled.labels == tokenizer.encode(cuts[1].supervisions[0].text) and not labelled.is_pseudo
    assert pseudo.is_pseudo
    frames = len(labelled.path_T)
    assert frames == cuts[1].features.num_frames // 8
    tokens_1U = torch.tensor([labelled.labels])
    features_1NF = torch.from_numpy(cuts[1].load_features()).float()[None]
    with torch.no_grad():
        encoded_1TD, _ = model.encode(features_1NF, torch.tensor([features_1NF.shape[1]]), torch.tensor([0]))
        logits = model.join(encoded_1TD[:, :, None], model.predict(tokens_1U)[:, None])
        blank_1TU, label_1TU = label_log_probs(logits, tokens_1U)
    u_T = labelled.path_T
    assert u_T[0] == 0 and (np.diff(u_T) >= 0).all() and (np.diff(u_T) <= 1).all()
    on_path = labelled.lattice_2TU[0, np.arange(frames), u_T]
    np.testing.assert_allclose(on_path, blank_1TU[0, range(frames), u_T], atol=2e-2)
    reached = labelled.lattice_2TU[1] != 0
    np.testing.assert_allclose(labelled.lattice_2TU[1][reached], label_1TU[0][reached], atol=2e-2)


def test_labels_in_bfloat16_are_near_those_in_float32(cuts_and_tokenizer):
    cuts, tokenizer = cuts_and_tokenizer
    torch.manual_seed(0)
    model = build_transducer({**SETTINGS, "num_mel_bins": 64, "vocab_size": tokenizer.vocab_size}).eval()
    exact, rounded = (list(label_batch(model, tokenizer, cuts, 3, in_bf16=bf16)) for bf16 in (False, True))
    for one, other in zip(exact, rounded, strict=True):
        assert one.labels == other.labels and one.confidence != other.confidence
        assert other.confidence == pytest.approx(one.confidence, rel=1e-2)
        np.testing.assert_allclose(one.lattice_2TU, other.lattice_2TU, atol=0.1)


def test_labelling_goes_on_where_it_was_killed(cuts_and_tokenizer, tmp_path):
    cuts, tokenizer = cuts_and_tokenizer
    torch.manual_seed(0)
    model = build_transducer({**SETTINGS, "num_mel_bins": 64, "vocab_size": tokenizer.vocab_size}).eval()
    options = {"top_k": 2, "shard_size": 2, "batch_seconds": 5.0}
    label_pool(model, tokenizer, cuts, tmp_path, **options)
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    (tmp_path / "000001.jsonl").unlink()
    kept = (tmp_path / "000000.safetensors").stat().st_mtime_ns
    label_pool(model, tokenizer, cuts, tmp_path, **options)
    assert {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())} == files
    assert (tmp_path / "000000.safetensors").stat().st_mtime_ns == kept


def target(name: str, frames: int, labels: list[int], confidence: float, is_pseudo: bool) -> Target:
    rng = np.random.default_rng(len(name) + frames)
    return Target(
        name,
        labels,
        confidence,
        is_pseudo,
        -rng.random((2, frames, len(labels) + 1)).astype(np.float16),
        rng.integers(0, len(labels) + 1, frames).astype(np.uint8),
        rng.integers(0, 500, (frames, 3)).astype(np.uint16),
        -rng.random((frames, 3)).astype(np.float16),
    )


def test_targets_survive_the_disk_and_are_padded(tmp_path):
    targets = [
        target("a", 5, [3, 4], -0.1, True),
        target("b", 9, [], -0.5, True),
        target("c", 2, [7], -9.0, True),
    ]
    write_shard(tmp_path, 0, targets[:2])
    write_shard(tmp_path, 1, [*targets[2:], target("d", 4, [5], -20.0, False)])
    counts = write_selection(tmp_path, min_confidence_quantile=0.5)
    store = TargetStore(tmp_path)
    assert counts["utterances/pseudo"] == 3 and counts["utterances/labelled"] == 1
    assert store.pseudo_labels() == {"a": [3, 4]}  # b heard nothing, c was unsure, d has a transcript
    batch = store(["c", "a"], 2, 6, 3)
    assert batch.log_blank_BTU.shape == (2, 6, 3) and batch.topk_ids_BTK.shape == (2, 6, 3)
    np.testing.assert_array_equal(batch.log_label_BTU[1, :5, :3], targets[0].lattice_2TU[1])
    np.testing.assert_array_equal(batch.path_BT[0, :2], targets[2].path_T)
    assert float(batch.log_blank_BTU[0, 2:].abs().sum()) == 0.0


def test_targets_move_with_their_frames(tmp_path):
    write_shard(tmp_path, 0, [target("a", 5, [3, 4], -0.1, True), target("b", 3, [9], -0.5, True)])
    write_selection(tmp_path, min_confidence_quantile=0.0)
    batch = TargetStore(tmp_path)(["a", "b"], 2, 5, 3)
    frames = [[0, 0, 2, 3, 4, 4], [1, 2, 2, 2, 2, 2]]  # a told slower, b without its beginning
    told = batch.at_frames(torch.tensor(frames))
    for name in ("log_blank_BTU", "log_label_BTU", "path_BT", "topk_ids_BTK", "topk_log_probs_BTK"):
        before, after = getattr(batch, name), getattr(told, name)
        for b, row in enumerate(frames):
            for new, old in enumerate(row):
                assert torch.equal(after[b, new], before[b, old])


def test_damaged_targets_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no teacher targets"):
        TargetStore(tmp_path)
    write_shard(tmp_path, 0, [target("a", 5, [3, 4], -0.1, True)])
    table = tmp_path / "000000.jsonl"
    table.write_text(table.read_text().replace('"num_frames": 5', '"num_frames": 4'))
    assert json.loads(table.read_text())["num_frames"] == 4
    with pytest.raises(UserError, match="damaged"):
        TargetStore(tmp_path)


def test_objectives_are_named_in_errors():
    with pytest.raises(UserError, match="losses.latice is unknown"):
        objectives({"latice": 1.0}, has_teacher=True)
    with pytest.raises(UserError, match="needs a teacher"):
        objectives({"lattice": 1.0}, has_teacher=False)
    assert [name for name, *_ in objectives({"ctc": 0.0, "fastemit": 0.1}, False)] == ["transducer"]


def test_precision_names():
    assert lightning_precision("fp32") == "32-true"
    assert lightning_precision("bf16") == "bf16-mixed"
    assert lightning_precision("auto") in ("32-true", "bf16-mixed")


def test_denormals_are_flushed():
    """In a process of its own: ONNX Runtime, which other tests load, switches it off again."""
    code = "import pipeline.training, torch; print(float(torch.tensor([1e-30]) * torch.tensor([1e-10])))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == 0.0


def test_a_model_begins_with_the_encoder_of_another_run(tmp_path):
    theirs, ours = (build_transducer({**SETTINGS, "vocab_size": size}) for size in (30, 12))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    take_encoder(ours, tmp_path, "student")
    for name, tensor in ours.state_dict().items():
        taken = name.startswith(("encoder.", "feature_"))
        assert torch.equal(tensor, theirs.state_dict()[name] if taken else before[name]), name
    wider = build_transducer({**SETTINGS, "encoder": {**SETTINGS["encoder"], "width": 56}})
    with pytest.raises(UserError, match="student.init_from: .* has another encoder than student.model says"):
        take_encoder(wider, tmp_path, "student")
    with pytest.raises(
        UserError, match="student.init_from: .* does not exist; name the data/student of a run"
    ):
        take_encoder(ours, tmp_path / "none", "student")
