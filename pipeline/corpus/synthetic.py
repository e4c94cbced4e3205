"""The embedded corpus: a voice assistant's commands, spoken by espeak-ng into noisy rooms.

`plan` decides everything that is random about every utterance (0.1 ms each); `render` makes the audio of one
utterance from its plan alone, in any order and any process, bit for bit the same (10 ms, 300 × real time).

Time line of an utterance (the transcript is the command alone):
    |leading|wake word|gap|command … (pause) … command|trailing|
                          ^speech_start_s             ^speech_end_s
"""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import soxr

from pipeline.corpus import acoustics, espeak
from pipeline.corpus.acoustics import rms
from pipeline.corpus.espeak import Speech
from pipeline.corpus.grammar import is_unseen
from pipeline.corpus.synthetic_plan import SyntheticConfig, UtterancePlan, generator, plan
from pipeline.corpus.voices import draw_accent, draw_voice, espeak_name
from pipeline.features.frames import SAMPLE_RATE_HZ

__all__ = ["SyntheticConfig", "UtterancePlan", "plan", "render"]


def render(plan: UtterancePlan) -> tuple[np.ndarray, dict, list[tuple[str, float]]]:
    """The audio of one utterance, float32 in [-1, 1] at 16 kHz on the grid of 16-bit samples, shape (S,), and
    its `custom` fields (times in seconds from the start of the audio, levels in dB), and its phones with the
    second in which each begins. SNR and SIR are those
    of the command as heard in the room, pauses not counted, against the noise and against the other
    talker's speech.
    """
    rng = np.random.default_rng(plan.seed)
    spoken = _speak(plan)
    speech_S, other_S = spoken.speech_S, spoken.other_S
    if plan.whisper:
        speech_S = acoustics.whisper(speech_S, rng)
    if plan.rt60_s:
        speech_S = acoustics.convolve(speech_S, _room(plan, rng))
        if other_S is not None:
            other_S = acoustics.convolve(other_S, _room(plan, rng))
    level = 10 ** (plan.level_dbfs / 20)
    command_S = np.concatenate([speech_S[start:end] for start, end in spoken.command_spans])
    noise_S = sum(
        acoustics.noise_crop(kind, _noise_group(plan, kind), _babble, len(speech_S), position)
        for kind, position in plan.noises
    )
    mixed_S = speech_S * np.float32(level / rms(command_S))
    mixed_S += noise_S * np.float32(level / rms(noise_S) * 10 ** (-plan.snr_db / 20))
    if other_S is not None:
        start, end = spoken.other_span
        mixed_S += other_S * np.float32(
            level / rms(other_S[start:end]) * 10 ** (-plan.interferer.sir_db / 20)
        )
    gain = min(1.0, 0.98 / float(np.abs(mixed_S).max()))  # quieter rather than clipped
    samples_S = np.rint(mixed_S * np.float32(gain * 32768)) / np.float32(32768)
    custom = _custom(plan, spoken, plan.level_dbfs + 20 * math.log10(gain))
    return samples_S.astype(np.float32), custom, [(name, _seconds(start)) for name, start in spoken.phones]


def _room(plan: UtterancePlan, rng: np.random.Generator) -> np.ndarray:
    return acoustics.room_response(plan.rt60_s, plan.direct_to_reverberant_db, rng)


def _noise_group(plan: UtterancePlan, kind: str) -> str:
    split = "train" if plan.split == "unlabelled" else plan.split
    return f"{split}/{plan.language}" if kind == "babble" else split


@dataclass(frozen=True)
class _Spoken:
    """Dry 16 kHz speech with its silences. Spans are (start, end) in samples: of the command's parts, of
    the wake word, of the other talker (on its own line, of the same length).
    """

    speech_S: np.ndarray
    phones: list[tuple[str, int]]  # (name, first sample) of wake word, command and the silence between
    command_spans: list[tuple[int, int]]
    wake_span: tuple[int, int] | None
    other_S: np.ndarray | None
    other_span: tuple[int, int] | None


def _speak(plan: UtterancePlan) -> _Spoken:
    words = plan.text.split()
    pieces = [" ".join(words[: plan.words_before_pause]), " ".join(words[plan.words_before_pause :])]
    other, other_speech = plan.interferer, None
    with espeak.fresh_library() as speak:

        def say(text: str) -> Speech:
            name = espeak_name(plan.voice, plan.accent)
            return _trim(speak(text, name, plan.rate_wpm, plan.pitch, plan.pitch_range))

        wake = say(plan.wake_word) if plan.wake_word else None
        commands = [say(piece) for piece in pieces if piece]
        if other:
            other_speech = _trim(
                speak(other.text, espeak_name(other.voice, other.accent), other.rate_wpm)
            ).samples_S

    line: list[np.ndarray] = []
    phones: list[tuple[str, int]] = []

    def add(speech: Speech) -> tuple[int, int]:
        start = sum(map(len, line))
        line.append(speech.samples_S)
        phones.extend((name, start + sample) for name, sample in speech.phones)
        return start, start + len(speech.samples_S)

    add(_silence(plan.leading_s))
    wake_span = None
    if wake is not None:
        wake_span = add(wake)
        add(_silence(plan.wake_gap_s))
    spans = [add(commands[0])]
    for command in commands[1:]:
        add(_silence(plan.pause_s))
        spans.append(add(command))
    add(_silence(plan.trailing_s))
    dry = np.concatenate(line)
    other_S = other_span = None
    if other_speech is not None:
        start = spans[0][0] + int(other.position * (spans[-1][1] - spans[0][0]))
        missed = min(max(-start, 0), len(other_speech) // 2)  # what was said before the recording began
        start = max(start, 0)
        heard = other_speech[missed : missed + len(dry) - start]
        other_line = np.zeros(len(dry), np.int16)
        other_line[start : start + len(heard)] = heard
        other_S, other_span = _resample(other_line), _at_16k((start, start + len(heard)))
    command_spans = [_at_16k(span) for span in spans]
    phones = [(name, _at_16k((start, start))[0]) for name, start in phones]
    wake_span = wake_span and _at_16k(wake_span)
    return _Spoken(_resample(dry), phones, command_spans, wake_span, other_S, other_span)


def _silence(duration_s: float) -> Speech:
    return Speech(np.zeros(int(duration_s * espeak.SAMPLE_RATE_HZ), np.int16), [(espeak.PAUSE, 0)])


def _at_16k(span: tuple[int, int]) -> tuple[int, int]:
    start, end = (position * SAMPLE_RATE_HZ // espeak.SAMPLE_RATE_HZ for position in span)
    return start, end


def _resample(samples: np.ndarray) -> np.ndarray:
    return soxr.resample(
        samples.astype(np.float32) / np.float32(32768), espeak.SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, "MQ"
    )


def _trim(speech: Speech) -> Speech:
    """Without the silence that espeak puts around speech (below -50 dB of the peak)."""
    level_S = np.abs(speech.samples_S.astype(np.int32))
    loud = np.flatnonzero(level_S > int(level_S.max() * 0.003))
    first, last = int(loud[0]), int(loud[-1])
    phones = [(name, max(0, start - first)) for name, start in speech.phones if start <= last]
    return Speech(speech.samples_S[first : last + 1], phones)


def _babble(group: str) -> np.ndarray:
    """Half a minute of six voices of the split talking at once, spoken from sentences of the grammar."""
    split, language = group.split("/")
    random = Random(group)
    length = acoustics.NOISE_BANK_S * SAMPLE_RATE_HZ // 2
    mixed = np.zeros(length, np.float32)
    with espeak.fresh_library() as speak:
        for _ in range(6):
            name = espeak_name(draw_voice(random, split), draw_accent(random, language))
            position = 0
            while position < length:
                text, rate_wpm = generator(language).draw(random).text, int(140 + 60 * random.random())
                speech = _resample(_trim(speak(text, name, rate_wpm)).samples_S)
                part = speech[: length - position] / np.float32(rms(speech))
                mixed[position : position + len(part)] += part
                position += len(part) + int(SAMPLE_RATE_HZ * 0.3 * random.random())
    return mixed


def _custom(plan: UtterancePlan, spoken: _Spoken, level_dbfs: float) -> dict:
    ranks = [rank for _, rank, _ in plan.names]
    return {
        "intent": plan.intent,
        "slots": plan.slots,
        "names": [name for _, _, name in plan.names],
        "name_rank": max(ranks, default=None),
        "unseen_name": any(map(is_unseen, ranks)),
        "rare_words": [name for _, rank, name in plan.names if rank >= 40],
        "voice": plan.voice,
        "accent": plan.accent,
        "rate_wpm": plan.rate_wpm,
        "pitch": plan.pitch,
        "pitch_range": plan.pitch_range,
        "level_dbfs": round(level_dbfs, 2),
        "whisper": plan.whisper,
        "wake_word": plan.wake_word,
        "wake_word_end_s": spoken.wake_span and _seconds(spoken.wake_span[1]),
        "speech_start_s": _seconds(spoken.command_spans[0][0]),
        "speech_end_s": _seconds(spoken.command_spans[-1][1]),
        "pause_s": plan.pause_s,
        "rt60_s": plan.rt60_s,
        "noise": "+".join(kind for kind, _ in plan.noises),
        "snr_db": plan.snr_db,
        "interferer_sir_db": plan.interferer.sir_db if plan.interferer else None,
        "interferer_voice": plan.interferer.voice if plan.interferer else None,
    }


def _seconds(position: int) -> float:
    return round(position / SAMPLE_RATE_HZ, 4)
