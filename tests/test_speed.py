"""Real-time factors: every engine hears all of it, in a process of its own."""

import numpy as np
import pytest

from pipeline.evaluation import speed
from tests.tiny_model import noise, tiny_packed, write_tiny


def test_every_engine_is_timed_on_the_same_audio(tmp_path):
    model = write_tiny(tmp_path / "lstm.sotto")
    found = speed.real_time_factors(model, None, [noise(1.0), noise(0.5, 1)])
    assert set(found) == {
        "rtf/engine",
        "rtf/greedy",
        "rtf/sherpa_fp32",
        "rtf/sherpa_int8",
        "rtf/sherpa_int8_beam",
    }
    assert all(0 < value < 10 for value in found.values())


def test_an_encoder_that_only_the_engine_knows_is_timed_alone(tmp_path):
    tiny_packed(tmp_path, "emformer")
    found = speed.real_time_factors(tmp_path / "emformer.sotto", None, [noise(0.5)])
    assert set(found) == {"rtf/engine"} and found["rtf/engine"] > 0


def test_engines_hear_whole_recordings_whatever_the_chunk(tmp_path):
    model = write_tiny(tmp_path / "lstm.sotto")
    seconds = speed.prepare(tmp_path, model, None, [noise(9.0, 1), noise(0.3)], (80, 160))
    recordings = [np.fromfile(file, np.float32) for file in sorted(tmp_path.glob("*.f32"))]
    assert [len(samples_S) % 2_560 for samples_S in recordings] == [160, 160]
    assert seconds == sum(map(len, recordings)) / 16_000
    for engine in ("engine", "greedy", "reference"):
        texts = {tuple(speed.open_engine(tmp_path, engine, ms)(x) for x in recordings) for ms in (80, 160)}
        assert len(texts) == 1 and any(texts.pop())


def test_a_worker_that_fails_is_an_error(tmp_path, capfd):
    with speed.start(tmp_path, "engine") as worker, pytest.raises(RuntimeError, match="engine 80 ended"):
        speed.ask(worker)
