"""espeak-ng through ctypes: text in, 22,050 Hz int16 samples out.

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

import espeakng_loader
import numpy as np

from pipeline.errors import UserError

SAMPLE_RATE_HZ = 22_050

_OUTPUT_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CHARS_UTF8 = 1
_BUFFER_MS = 2000
_VOLUME_PERCENT = 40  # at 100 a third of the voices clip
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

_chunks: list[bytes] = []


@_CALLBACK
def _collect(samples, num_samples, _events):
    if samples and num_samples > 0:
        _chunks.append(ctypes.string_at(samples, num_samples * 2))
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
def fresh_library() -> Iterator[Callable[..., np.ndarray]]:
    """Load espeak-ng, yield `speak`, unload it. Not re-entrant, not for threads.

    `speak(text, voice, rate_wpm=170, pitch=50, pitch_range=50)` returns int16 samples at 22,050 Hz, shape
    (S,); `voice` is "<language file>+<variant>", such as "en-us+f3"; `pitch` and `pitch_range` are espeak's
    own scales (0–100, 50 is the voice's normal). Raises UserError for a voice that does not exist.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    path = _data_path().encode()
    if library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, _BUFFER_MS, path, _DONT_EXIT) != SAMPLE_RATE_HZ:
        raise UserError("espeak-ng did not start with its data; reinstall espeakng-loader")
    library.espeak_SetSynthCallback(_collect)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def speak(text: str, voice: str, rate_wpm: int = 170, pitch: int = 50, pitch_range: int = 50):
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice '{voice}'")
        values = ((_RATE, rate_wpm), (_VOLUME, _VOLUME_PERCENT), (_PITCH, pitch), (_RANGE, pitch_range))
        for parameter, value in values:
            library.espeak_SetParameter(parameter, value, 0)
        _chunks.clear()
        encoded = text.encode() + b"\0"
        library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, _CHARS_UTF8, None, None)
        return np.frombuffer(b"".join(_chunks), np.int16)

    try:
        yield speak
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
