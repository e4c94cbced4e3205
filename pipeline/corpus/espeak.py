"""espeak-ng through ctypes: text in, 22,050 Hz int16 samples and the phones in them out.

The library (from the `espeakng_loader` wheel) is process-global and carries state from one call to the
next: the phase of its pitch flutter, roughness, gain. Re-initialising does not reset it, and the same text
comes out tens of samples longer or shorter. Unloading it does: `fresh_library` gives the library as a new
process has it, for 0.7 ms, and what is spoken inside depends on nothing spoken before. Parallel work uses
processes.
"""

import _ctypes
import contextlib
import ctypes
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import espeakng_loader
import numpy as np

from pipeline.errors import UserError

SAMPLE_RATE_HZ = 22_050

_OUTPUT_SYNCHRONOUS, _DONT_EXIT, _PHONEME_EVENTS = 2, 0x8000, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CHARS_UTF8 = 1
_BUFFER_MS = 2000
_VOLUME_PERCENT = 40  # at 100 a third of the voices clip
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

_LIST_TERMINATED, _PHONEME = 0, 7
_STRESS = "',_!|;*:~`^\"0123456789"  # marks of stress, length and accent, which name no other phone
PAUSE = "_"


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


class Speech(NamedTuple):
    """`samples_S` int16; `phones`: (name, first sample) in order, `PAUSE` where nothing is said."""

    samples_S: np.ndarray
    phones: list[tuple[str, int]]


_chunks: list[bytes] = []
_phones: list[tuple[str, int]] = []


@_CALLBACK
def _collect(samples, num_samples, events):
    if samples and num_samples > 0:
        _chunks.append(ctypes.string_at(samples, num_samples * 2))
    events = ctypes.cast(events, ctypes.POINTER(_Event))
    index = 0
    while events[index].type != _LIST_TERMINATED:
        if events[index].type == _PHONEME:
            name = events[index].name.decode().strip(_STRESS) or PAUSE
            _phones.append((name, events[index].sample))
        index += 1
    return 0


@cache
def _data_path() -> str:
    """The wheel's data behind links, with every language file under a lower-case name.

    espeak lower-cases the voice it is asked for; where no file has that name ("en-US") it reads all 280 voice
    files to find it, 2 ms each time.
    """
    source = Path(espeakng_loader.get_data_path())
    name = f"sotto-espeak-{os.getuid()}-{zlib.crc32(str(source).encode()):08x}"
    target = Path(tempfile.gettempdir()) / name  # shared by all processes: a killed one leaves no litter
    if not (target / "phontab").exists():
        draft = Path(tempfile.mkdtemp(prefix=name))
        (draft / "lang").mkdir()
        for path in source.iterdir():
            if path.name != "lang":
                (draft / path.name).symlink_to(path)
        for path in source.glob("lang/*/*"):
            (draft / "lang" / path.name.lower()).symlink_to(path)
        try:
            draft.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(draft)
    if target.stat().st_uid != os.getuid():
        raise UserError(f"{target} belongs to another user; remove it or set TMPDIR")
    return str(target)


@contextlib.contextmanager
def fresh_library() -> Iterator[Callable[..., Speech]]:
    """Load espeak-ng, yield `speak`, unload it. Not re-entrant, not for threads.

    `speak(text, voice, rate_wpm=170, pitch=50, pitch_range=50)` returns a `Speech` at 22,050 Hz; `voice` is
    "<language file>+<variant>", such as "en-us+f3"; `pitch` and `pitch_range` are espeak's own scales (0–100, 50 is the
    voice's normal). Raises UserError for a voice that does not exist.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    path = _data_path().encode()
    options = _DONT_EXIT | _PHONEME_EVENTS
    if library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, _BUFFER_MS, path, options) != SAMPLE_RATE_HZ:
        raise UserError("espeak-ng did not start with its data; reinstall espeakng-loader")
    library.espeak_SetSynthCallback(_collect)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def speak(text: str, voice: str, rate_wpm: int = 170, pitch: int = 50, pitch_range: int = 50) -> Speech:
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice '{voice}'")
        values = ((_RATE, rate_wpm), (_VOLUME, _VOLUME_PERCENT), (_PITCH, pitch), (_RANGE, pitch_range))
        for parameter, value in values:
            library.espeak_SetParameter(parameter, value, 0)
        _chunks.clear()
        _phones.clear()
        encoded = text.encode() + b"\0"
        library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, _CHARS_UTF8, None, None)
        return Speech(np.frombuffer(b"".join(_chunks), np.int16), _phones.copy())

    try:
        yield speak
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
