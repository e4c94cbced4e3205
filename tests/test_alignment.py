"""Phones in time: what espeak says it says, quarter frames against a slow twin, and the objective on them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse.supervision import AlignmentItem

from pipeline.corpus.alignment import DELAY_S, UNKNOWN, frame_phones, read_phones
from pipeline.corpus.shards import Utterance, load_cuts, write_split
from pipeline.corpus.synthetic import SyntheticConfig, plan, render
from pipeline.errors import UserError
from pipeline.features.fbank import FbankConfig
from pipeline.training.objectives import phone


def cut_with(items) -> SimpleNamespace:
    return SimpleNamespace(supervisions=[SimpleNamespace(alignment={"phone": items} if items else None)])


def slow_twin(items, ids, start_frame, num_frames) -> list[int]:
    labels = []
    for quarter in range(4 * start_frame, 4 * (start_frame + num_frames)):
        heard_s = (quarter + 0.5) * 0.02 - DELAY_S
        name = None
        for item in items:
            if item.start <= heard_s:
                name = item.symbol
        labels.append(ids.get(name, UNKNOWN))
    return labels


@settings(max_examples=60, deadline=None)
@given(
    starts_ms=st.lists(st.integers(0, 900), max_size=12, unique=True),
    start_frame=st.integers(0, 6),
    num_frames=st.integers(0, 12),
)
def test_frame_phones_equal_their_slow_twin(starts_ms, start_frame, num_frames):
    names, ids = "abcde", {"a": 0, "b": 1, "c": 2, "d": 3}  # e is unknown
    items = [AlignmentItem(names[k % 5], ms / 1000, 0.01) for k, ms in enumerate(sorted(starts_ms))]
    found = frame_phones(cut_with(items), ids, start_frame, num_frames)
    assert found.tolist() == slow_twin(items, ids, start_frame, num_frames)


def test_the_synthetic_corpus_tells_its_phones():
    """In order, inside the audio, speech where it is loud and pauses where nothing is said."""
    items = plan(SyntheticConfig("en"), "train", 0.01, 3)
    for item in items:
        item = dataclasses.replace(item, snr_db=60.0, interferer=None, rt60_s=None)
        samples_S, custom, phones = render(item)
        names, starts_s = [name for name, _ in phones], [start_s for _, start_s in phones]
        assert starts_s == sorted(starts_s) and starts_s[0] == 0.0 and starts_s[-1] < len(samples_S) / 16_000
        assert names[0] == names[-1] == "_"
        assert len(set(names) - {"_"}) > 2
        assert custom["speech_start_s"] - 0.01 <= next(
            s for n, s in phones if n != "_" and s >= custom["speech_start_s"] - 0.01
        )
        assert starts_s[-1] == pytest.approx(custom["speech_end_s"], abs=0.01)


def test_alignments_travel_with_cuts_and_stay_hidden_with_their_text(tmp_path):
    def render_one(index: int):
        utterance = Utterance(f"u{index}", "a b", "s", "en", {}, [("x", 0.0), ("y", 0.245)])
        return utterance, np.zeros(16_000, np.float32) + 0.1

    for name, hide in (("train", False), ("hidden", True)):
        options = {"with_audio": False, "hide_text": hide, "fbank_config": FbankConfig()}
        write_split(tmp_path / name, range(2), render_one, **options)
    (known, _), (hidden, _) = (list(load_cuts(tmp_path / name)) for name in ("train", "hidden"))
    assert known.supervisions[0].alignment["phone"] == [
        AlignmentItem("x", 0.0, 0.245),
        AlignmentItem("y", 0.245, 0.755),
    ]
    assert frame_phones(hidden, {"x": 0}, 0, 12).tolist() == [UNKNOWN] * 48
    (tmp_path / "phones.txt").write_text("x\ny\n")
    ids = read_phones(tmp_path)
    assert ids == {"x": 0, "y": 1}
    assert frame_phones(known, ids, 0, 12).tolist() == [UNKNOWN] * 2 + [0] * 12 + [1] * 34


def test_phone_loss_is_a_quarter_of_the_cross_entropy_of_known_quarters():
    logits_BMP = torch.randn(2, 8, 5)
    phones_BM = torch.tensor([[0, 1, 2, 3, 4, 0, -1, -1], [-1] * 8])
    step = SimpleNamespace(
        outputs=SimpleNamespace(phone_logits_BMP=logits_BMP), batch=SimpleNamespace(phones_BM=phones_BM)
    )
    expected = -sum(float(logits_BMP[0, m].log_softmax(-1)[phones_BM[0, m]]) for m in range(6)) / 4
    torch.testing.assert_close(phone(step), torch.tensor([expected, 0.0]))
    step.outputs.phone_logits_BMP = None
    with pytest.raises(UserError, match="alignments"):
        phone(step)
