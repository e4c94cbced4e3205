"""params.yaml and presets: what is accepted, and the sentence for everything else."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import presets
from pipeline.errors import UserError
from pipeline.files import read_yaml
from pipeline.params import SHARED, STAGE_TYPES, STAGES, load_all, load_params
from tests.conftest import ROOT, stage_environment

NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


@pytest.fixture
def edited(tmp_path: Path):
    """Write params.yaml with `section.key` set to a value (or removed, given ...) and return its path."""

    def edit(key: str, value: object) -> Path:
        content = read_yaml(ROOT / "params.yaml")
        *way, last = key.split(".")
        section = content
        for name in way:
            section = section[name]
        if value is ...:
            del section[last]
        else:
            section[last] = value
        presets.write_yaml(tmp_path / "params.yaml", content)
        return tmp_path / "params.yaml"

    return edit


def test_every_stage_gets_frozen_parameters_with_its_shared_sections():
    loaded = load_all(ROOT / "params.yaml")
    assert list(loaded) == list(STAGES)
    teacher = load_params("teacher", ROOT / "params.yaml")
    assert teacher == loaded["teacher"] and teacher.seed == read_yaml(ROOT / "params.yaml")["seed"]
    assert isinstance(teacher.trainer.batch_seconds, float) and teacher.features.num_mel_bins == 64
    with pytest.raises(dataclasses.FrozenInstanceError):
        teacher.seed = 8


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("qat.levles", 15, "unknown key qat.levles; did you mean levels?"),
        ("teacher.trainer.epocs", 3, "unknown key teacher.trainer.epocs; did you mean epochs?"),
        ("taecher", {}, "unknown key taecher; did you mean teacher?"),
        ("qat.seed", 3, "unknown key qat.seed; seed stands at the top level"),
        ("student", ..., "missing key student"),
        ("seed", ..., "missing key seed"),
        ("teacher.trainer.peak_lr", ..., "missing key teacher.trainer.peak_lr"),
        ("data.hours.dev", ..., "missing key data.hours.dev"),
        ("data.hours.holdout", 1.0, "unknown key data.hours.holdout"),
        ("teacher.trainer.epochs", "many", "teacher.trainer.epochs must be a whole number, not 'many'"),
        ("teacher.trainer.epochs", 2.5, "teacher.trainer.epochs must be a whole number"),
        ("teacher.trainer.epochs", True, "teacher.trainer.epochs must be a whole number"),
        ("teacher.trainer", 3, "teacher.trainer must be a section of keys"),
        ("qat", None, "qat must be a section of keys"),
        ("data.hours.train", -1, "data.hours.train must be 0 or more"),
        ("data.hours.train", 0, "data.hours.train must be more than 0"),
        ("sparsify.sparsity", 1.5, "sparsify.sparsity must be at least 0 and below 1, not 1.5"),
        ("sparsify.sparsity", 1, "sparsify.sparsity must be at least 0 and below 1"),
        ("qat.levels", 0, "qat.levels must be an odd number of levels"),
        ("qat.levels", 16, "qat.levels must be an odd number of levels"),
        ("qat.levels", 1, "qat.levels must be an odd number of levels"),
        ("student.trainer.batch_seconds", 0, "student.trainer.batch_seconds must be more than 0"),
        ("student.trainer.peak_lr", float("nan"), "student.trainer.peak_lr must be a number"),
        ("student.losses.lattice", -0.1, "student.losses.lattice must be 0 or more"),
        ("qat.trainer.precision", "int8", "qat.trainer.precision must be one of auto, bf16, fp32"),
        ("qat.after", "teacher", "qat.after must be one of student, sparsify, qat"),
        ("qat.after", "qat", "qat.after goes in a circle (qat → qat)"),
        ("sparsify.after", "qat", "goes in a circle"),
        ("teacher.model.encoder.name", "gru", "gru"),
        ("sparsify.perturb.tempo", 0.9, "sparsify.perturb: perturb.tempo: 0.9 must lie between 0 and 0.5"),
        ("teacher.model.encoder.width", -4, "teacher.model.encoder.width must be at least 1"),
        ("features.num_mel_bins", 4, "features.num_mel_bins must be between 8 and 256"),
        ("data.source", "manifest", "data.manifest is missing"),
    ],
)
def test_a_wrong_file_gets_a_sentence_that_names_the_key(edited, key, value, words):
    with pytest.raises(UserError) as raised:
        load_all(edited(key, value))
    sentence = str(raised.value)
    assert words in sentence and sentence.startswith("params.yaml: ") and "\n" not in sentence


def test_a_file_that_is_no_yaml_or_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_all(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: [1\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_all(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_all(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="must hold sections"):
        load_all(tmp_path / "params.yaml")


def test_the_command_checks_the_file_and_exits_with_2(edited, tmp_path):
    edited("qat.levels", 4)
    command = [sys.executable, "-m", "pipeline.params"]
    done = subprocess.run(command, cwd=tmp_path, env=stage_environment(), capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("params.yaml: qat.levels must be an odd number")
    assert len(done.stderr.splitlines()) == 1


def test_shared_sections_are_those_that_dvc_watches():
    """A stage that reads a section DVC does not watch would not be run again when the section changes."""
    graph = read_yaml(ROOT / "dvc.yaml")["stages"]
    for stage, stage_type in STAGE_TYPES.items():
        shared = set(SHARED) & {field.name for field in dataclasses.fields(stage_type)}
        assert set(graph[stage]["params"]) == shared | {stage}, stage


def test_importing_params_brings_no_torch():
    script = "import sys, pipeline.params; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", script], env=stage_environment()).returncode == 0
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", NAMES)
def test_presets_fit_params_yaml(name, tmp_path, monkeypatch):
    manifest = tmp_path / "manifest.jsonl"
    manifest.touch()
    monkeypatch.setenv("SOTTO_MANIFEST", str(manifest))
    presets.make_copy(ROOT, tmp_path / "copy", ROOT / "presets" / f"{name}.yaml")
    merged = read_yaml(tmp_path / "copy/params.yaml")
    assert merged != read_yaml(ROOT / "params.yaml") and set(load_all(tmp_path / "copy/params.yaml")) == set(
        STAGES
    )
    assert "no_scm = true" in (tmp_path / "copy/.dvc/config.local").read_text()
    assert not (tmp_path / "copy/data").exists() and (tmp_path / "copy/pipeline/params.py").exists()
    if name == "real":
        assert merged["data"]["manifest"] == str(manifest)


def test_a_copy_made_again_follows_the_code_and_keeps_the_run(tmp_path):
    target = tmp_path / "copy"
    presets.make_copy(ROOT, target, None)
    (target / "pipeline/old_module.py").touch()
    (target / "data/teacher").mkdir(parents=True)
    (target / "dvc.lock").write_text("mine")
    (target / "pipeline/errors.py").write_text("stale")
    presets.make_copy(ROOT, target, None)
    assert not (target / "pipeline/old_module.py").exists() and (target / "data/teacher").exists()
    assert (target / "dvc.lock").read_text() == "mine"
    assert (target / "pipeline/errors.py").read_bytes() == (ROOT / "pipeline/errors.py").read_bytes()


def test_a_preset_can_change_the_encoder():
    base = {"encoder": {"name": "lstm", "num_layers": 4}, "seed": 1}
    changed = presets.merge(base, {"encoder": {"num_layers": 2}})
    assert changed == {"encoder": {"name": "lstm", "num_layers": 2}, "seed": 1}
    other = {"name": "emformer", "num_heads": 4}
    assert presets.merge(base, {"encoder": other})["encoder"] == other


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teacher: {trainer: {epoch: 2}}", "unknown key teacher.trainer.epoch; did you mean epochs?"),
        ("techer: {trainer: {epochs: 2}}", "unknown key techer; did you mean teacher?"),
        ("sparsify: {sparsity: 1.5}", "sparsify.sparsity must be at least 0 and below 1"),
    ],
)
def test_a_wrong_preset_is_refused_before_anything_is_copied(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as raised:
        presets.make_copy(ROOT, tmp_path / "copy", tmp_path / "mine.yaml")
    assert str(raised.value).startswith("presets/mine.yaml: ") and words in str(raised.value)
    assert not (tmp_path / "copy").exists()


def test_real_speech_without_a_manifest_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.delenv("SOTTO_MANIFEST", raising=False)
    with pytest.raises(UserError, match="SOTTO_MANIFEST"):
        presets.make_copy(ROOT, tmp_path / "copy", ROOT / "presets/real.yaml")
    monkeypatch.setenv("SOTTO_MANIFEST", str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(UserError, match="nowhere.jsonl: is no file"):
        presets.make_copy(ROOT, tmp_path / "copy", ROOT / "presets/real.yaml")
    assert not (tmp_path / "copy").exists()


def test_an_unknown_preset_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"presets/ful.yaml: does not exist; did you mean full\?"):
        presets.run_preset("ful", ROOT)
