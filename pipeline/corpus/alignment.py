"""Phones in time: what is being said in each quarter of an 80 ms frame, for corpora that know it.

The cuts carry lhotse's `alignment["phone"]` (the synthetic corpus has it from espeak, LibriSpeech from a forced
aligner). A frame's label is told a little late, as an encoder without look-ahead needs it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut

PHONES_PER_FRAME = 4
DELAY_S = 0.04  # a phone is asked for when it has begun to sound
UNKNOWN = -1
_QUARTER_S = 0.02
PHONES_FILE = "phones.txt"


def read_phones(folder: Path) -> dict[str, int]:
    """Name → id of `phones.txt`; empty where the corpus has no alignments."""
    names = (folder / PHONES_FILE).read_text(encoding="utf-8").splitlines()
    return {name: index for index, name in enumerate(names)}


def frame_phones(cut: MonoCut, ids: dict[str, int], start_frame: int, num_frames: int) -> np.ndarray:
    """Phone ids (4 x num_frames,) int16 from `start_frame` on; UNKNOWN without alignment and for new names."""
    items = _alignment(cut)
    if not items:
        return np.full(PHONES_PER_FRAME * num_frames, UNKNOWN, np.int16)
    starts_s = np.array([item.start for item in items])
    symbols = np.array([UNKNOWN, *(ids.get(item.symbol, UNKNOWN) for item in items)], np.int16)
    quarters = np.arange(PHONES_PER_FRAME * start_frame, PHONES_PER_FRAME * (start_frame + num_frames))
    heard_s = (quarters + 0.5) * _QUARTER_S - DELAY_S
    return symbols[np.searchsorted(starts_s, heard_s, side="right")]


def _alignment(cut: MonoCut) -> Sequence:
    return (cut.supervisions[0].alignment or {}).get("phone", ())
