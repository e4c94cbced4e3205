"""A device's process imports nothing of training; what it knows by itself of models is what the models say."""

import subprocess
import sys

import pytest
import soundfile

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding import token_lattice
from pipeline.decoding.endpoint_input import EndpointModelConfig
from pipeline.decoding.endpoint_model import EndpointModel
from pipeline.decoding.endpointer import TICK_MS, TICKS_PER_FRAME, EndpointConfig
from pipeline.features import frames
from pipeline.models import predictor
from pipeline.models.config import TransducerConfig
from pipeline.models.transducer import TRAINING_ONLY, build_transducer
from pipeline.runtime import tensors
from pipeline.runtime.endpoint_score import digest, write_endpointer
from tests.conftest import ROOT, stage_environment
from tests.tiny_model import noise, write_tiny

HEAVY = {"torch", "torchaudio", "lhotse", "pytorch_lightning", "mlflow", "pandas"}
LISTENS = """
import sys, numpy
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.endpoint_score import find_endpointer
from pipeline.runtime.engine import Engine

engine = Engine(load_packed(sys.argv[1]), endpointer=find_endpointer(sys.argv[1]))
state, events = engine.accept(numpy.fromfile(sys.argv[2], numpy.float32), engine.stream())
state, last = engine.finish(state)
"""
MEASURED = """
import sys, numpy
from pipeline.evaluation.speed import whole_engine

assert whole_engine(sys.argv[1], None, 2560)(numpy.fromfile(sys.argv[2], numpy.float32))
"""
COMMAND = "import sys; from pipeline.cli import app; app(standalone_mode=False)"


def modules_after(script, *arguments):
    """(top-level modules that a process has imported when `script` ends, what it printed)."""
    tell = "\nprint(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    command = [sys.executable, "-c", script + tell, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=stage_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split()), done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with a packed file, its end-pointer, a recording and phrases."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("pack", "stream"):
        (folder / name).mkdir()
    file = write_tiny(folder / "pack/model.sotto")
    model = EndpointModel(EndpointModelConfig(24)).eval()
    write_endpointer(folder / "stream/endpointer.safetensors", model, EndpointConfig(), digest(file))
    noise(3).tofile(folder / "samples.f32")
    soundfile.write(folder / "samples.wav", noise(3), 16_000)
    (folder / "phrases.txt").write_text("kitchen\nanna\n")
    return folder


def test_an_engine_imports_no_torch(run):
    say = "print(len(events + last))"
    found, printed = modules_after(LISTENS + say, run / "pack/model.sotto", run / "samples.f32")
    assert not HEAVY & found and {"numba", "numpy"} <= found and int(printed) > 0


def test_an_engine_on_the_released_file_imports_no_torch(run):
    found, _ = modules_after(LISTENS, ROOT / "release/model.sotto", run / "samples.f32")
    assert not HEAVY & found


def test_the_command_listen_imports_no_torch(run):
    options = ["--model", run / "pack/model.sotto", "--phrases", run / "phrases.txt", "--json"]
    found, printed = modules_after(COMMAND, "listen", run / "samples.wav", *options)
    assert not HEAVY & found and '"final_end"' in printed


def test_the_engine_whose_speed_and_memory_are_measured_imports_no_torch(run):
    found, _ = modules_after(MEASURED, run / "pack/model.sotto", run / "samples.f32")
    assert not HEAVY & found


def test_an_emformer_brings_torch(run):
    file = write_tiny(run / "emformer.sotto", "emformer")
    assert "torch" in modules_after(LISTENS, file, run / "samples.f32")[0]


def test_constants_agree():
    assert frames.FRAME_S == frames.FEATURES_PER_FRAME * frames.FRAME_SHIFT / frames.SAMPLE_RATE_HZ
    assert frames.FRAME_MS == 1000 * frames.FRAME_S == TICKS_PER_FRAME * TICK_MS
    assert frames.FEATURES_PER_FRAME == TICKS_PER_FRAME * frames.FEATURES_PER_TICK
    assert tensors.CONTEXT_SIZE == predictor.CONTEXT_SIZE
    assert token_lattice.BLANK_ID == Tokenizer.blank_id


def config_with(**encoder):
    sizes = {"joiner_width": 20, "vocab_size": 48, "num_mel_bins": 17, "num_phones": 5}
    encoder = {"name": "lstm", "num_layers": 3, "width": 24, **encoder}
    return TransducerConfig.of({"encoder": encoder, "predictor": {"width": 22}, **sizes})


@pytest.mark.parametrize("input_width", [None, 18])
@pytest.mark.parametrize("channels", [None, [], [3], [3, 5, 2], [1] * 8])
def test_shapes_are_those_of_the_model(input_width, channels):
    config = config_with(input_width=input_width, channels=channels)
    model = build_transducer(config).state_dict()
    expected = {name: tuple(t.shape) for name, t in model.items() if not name.startswith(TRAINING_ONLY)}
    assert tensors.lstm_shapes(config) == expected


@pytest.mark.parametrize(
    "channels", [[0], [-1], [4, 10**9], [4.0], [True], ["4"], [[4]], [4] * 9, 4, "4", {"4": 4}]
)
def test_channels_that_are_none_are_refused(channels):
    with pytest.raises(ValueError):
        tensors.lstm_shapes(config_with(channels=channels))
