"""The embedded corpus: a voice assistant's commands, spoken by espeak-ng into noisy rooms.

`plan` decides everything that is random about every utterance (0.1 ms each); `render` makes the audio of one
utterance from its plan alone, in any order and any process, bit for bit the same.

Splits: voices by the lists of `voices.py`; sentences by a hash of their text (a dev or test sentence never occurs in
train or unlabelled, and occurs once); every fifth name of a list never occurs in train or unlabelled, and a fifth
of the dev and test sentences with names have one of those.

Time line of an utterance (transcript = the command alone):
    |leading|wake word|gap|command … (pause) … command|trailing|
                          ^speech_start_s             ^speech_end_s
"""

import itertools
import zlib
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
import soxr

from pipeline.corpus import acoustics, espeak
from pipeline.corpus.acoustics import SAMPLE_RATE_HZ, rms
from pipeline.corpus.grammar import Generator, Sentence, is_unseen
from pipeline.corpus.grammar_en import ENGLISH
from pipeline.corpus.voices import VOICES, draw_accent, draw_voice, espeak_name
from pipeline.errors import UserError

LANGUAGES = {"en": ENGLISH}
WAKE_WORDS = ("sotto", "computer")
WAKE_SHARE, PAUSE_SHARE, WHISPER_SHARE, ROOM_SHARE, INTERFERER_SHARE = 0.5, 0.15, 0.04, 0.5, 0.2
UNSEEN_NAME_SHARE = 0.2  # of the dev and test sentences that have names
SECOND_NOISE_SHARE = 0.3

# sentence hash modulo 16 → split
_BUCKETS = {"test": (0, 1), "dev": (2,), "train": range(3, 16), "unlabelled": range(3, 16)}


@dataclass(frozen=True)
class SyntheticConfig:
    """`language`: "en", "es", or several as "en+es" (equal shares)."""

    language: str = "en"

    def __post_init__(self) -> None:
        for language in self.language.split("+"):
            if language not in LANGUAGES:
                raise UserError(f"data.language: {language!r} has no synthetic corpus; use en, es or en+es")


@dataclass(frozen=True)
class Interferer:
    """Another talker: what, who, where from (fraction of the audio) and how far below the command."""

    text: str
    voice: str
    accent: str
    rate_wpm: int
    position: float
    sir_db: float


@dataclass(frozen=True)
class UtterancePlan:
    """Everything there is to know of an utterance before it is spoken. Probabilities are spent: `render` draws
    only noise samples, from `seed`.
    """

    id: str
    split: str
    language: str
    text: str
    intent: str
    slots: dict[str, str]
    names: tuple[tuple[str, int, str], ...]  # (list, rank, name)
    voice: str
    accent: str
    rate_wpm: int
    pitch: int
    pitch_range: int
    level_dbfs: float
    leading_s: float
    trailing_s: float
    wake_word: str | None
    wake_gap_s: float
    pause_s: float | None
    words_before_pause: int
    whisper: bool
    rt60_s: float | None
    direct_to_reverberant_db: float
    noises: tuple[tuple[str, float], ...]  # (kind, position in its bank)
    snr_db: float
    interferer: Interferer | None
    seed: int
    expected_s: float

    @property
    def speaker(self) -> str:
        return self.voice


def plan(config: SyntheticConfig, split: str, hours: float, seed: int) -> list[UtterancePlan]:
    """As many utterances as make about `hours` of audio (within 5 %), the same for the same arguments; more
    hours only add utterances at the end. Raises UserError for a split that does not exist.
    """
    if split not in VOICES:
        raise UserError(f"synthetic corpus: no split {split!r}; use one of {', '.join(VOICES)}")
    languages = config.language.split("+")
    plans, used, total_s = [], set(), 0.0
    while total_s < hours * 3600:
        random = Random(f"{seed}/{config.language}/{split}/{len(plans)}")
        language = languages[int(random.random() * len(languages))]
        sentence = _draw_sentence(random, language, split, used)
        plans.append(_draw_conditions(random, language, split, len(plans), sentence))
        total_s += plans[-1].expected_s
    return plans


def _draw_sentence(random: Random, language: str, split: str, used: set[str]) -> Sentence:
    heldout = split in ("dev", "test")
    wants_unseen = heldout and random.random() < UNSEEN_NAME_SHARE
    for _ in range(1000):  # a dev sentence takes 16 draws on average
        sentence = _generator(language).draw(random, wants_unseen)
        if zlib.crc32(sentence.text.encode()) % 16 in _BUCKETS[split] and sentence.text not in used:
            break
    if heldout:
        used.add(sentence.text)
    return sentence


def _draw_conditions(random: Random, language: str, split: str, index: int, sentence: Sentence) -> UtterancePlan:
    def uniform(low: float, high: float, digits: int = 2) -> float:
        return round(low + (high - low) * random.random(), digits)

    def happens(share: float) -> bool:
        return random.random() < share

    num_words = len(sentence.text.split())
    rate_wpm = int(uniform(130, 210, 0))
    wake_word = WAKE_WORDS[int(random.random() * len(WAKE_WORDS))] if happens(WAKE_SHARE) else None
    wake_gap_s = uniform(0.1, 0.4)
    pause_s = uniform(0.2, 0.6) if happens(PAUSE_SHARE) and num_words > 2 else None
    whisper = happens(WHISPER_SHARE)
    leading_s, trailing_s = uniform(0.05, 0.3), uniform(0.25, 0.5)
    interferer = None
    if happens(INTERFERER_SHARE):
        other = _generator(language).draw(random)
        interferer = Interferer(
            other.text,
            draw_voice(random, split),
            draw_accent(random, language),
            int(uniform(130, 210, 0)),
            uniform(-0.3, 0.8, 3),
            uniform(8, 25, 1),
        )
    noises = [_draw_noise(random)] + ([_draw_noise(random)] if happens(SECOND_NOISE_SHARE) else [])
    speech_s = _expected_speech_s(sentence.text, rate_wpm) + (pause_s or 0)
    wake_s = _expected_speech_s(wake_word, rate_wpm) + wake_gap_s if wake_word else 0
    voice = draw_voice(random, split)
    return UtterancePlan(
        id=f"synthetic-{language}-{split}-{index:06d}",
        split=split,
        language=language,
        text=sentence.text,
        intent=sentence.intent,
        slots=sentence.slots,
        names=tuple(sentence.names),
        voice=voice,
        accent=draw_accent(random, language),
        rate_wpm=rate_wpm,
        pitch=int(uniform(30, 70, 0)),
        pitch_range=int(uniform(20, 80, 0)),
        level_dbfs=uniform(-36, -20, 1) - (6 if whisper else 0),
        leading_s=leading_s,
        trailing_s=trailing_s,
        wake_word=wake_word,
        wake_gap_s=wake_gap_s,
        pause_s=pause_s,
        words_before_pause=1 + int(random.random() * (num_words - 1)) if pause_s else num_words,
        whisper=whisper,
        rt60_s=uniform(0.1, 0.5) if happens(ROOM_SHARE) else None,
        direct_to_reverberant_db=uniform(0, 12, 1),
        noises=tuple(noises),
        snr_db=uniform(5, 30, 1),
        interferer=interferer,
        seed=int(random.random() * 2**52),
        expected_s=leading_s + wake_s + speech_s + trailing_s,
    )


def _draw_noise(random: Random) -> tuple[str, float]:
    kinds = list(acoustics.NOISE_KINDS)
    edges = list(itertools.accumulate(acoustics.NOISE_KINDS.values()))
    position = random.random()
    return kinds[sum(position >= edge for edge in edges[:-1])], random.random()


def _expected_speech_s(text: str, rate_wpm: int) -> float:
    return (0.26 + 0.0482 * len(text)) * 170 / rate_wpm


@lru_cache
def _generator(language: str) -> Generator:
    return Generator(LANGUAGES[language])


def render(plan: UtterancePlan) -> tuple[np.ndarray, dict]:
    """The audio of one utterance, float32 in [-1, 1] at 16 kHz on the grid of 16-bit samples, shape (S,), and
    its `custom` fields (times in seconds from the start of the audio, levels in dB). SNR and SIR are those of the
    command as heard in the room, pauses not counted, against the noise and against the other talker's speech.
    """
    rng = np.random.default_rng(plan.seed)
    speech_S, spans, wake_end, other_S = _speak(plan)
    if plan.whisper:
        speech_S = acoustics.whisper(speech_S, rng)
    if plan.rt60_s:
        speech_S = acoustics.convolve(speech_S, _room(plan, rng))
        if other_S is not None:
            other_S = acoustics.convolve(other_S, _room(plan, rng))
    speech_S *= np.float32(10 ** (plan.level_dbfs / 20) / rms(np.concatenate([speech_S[a:b] for a, b in spans])))
    speech_rms = 10 ** (plan.level_dbfs / 20)
    noise_S = sum(
        acoustics.noise_crop(kind, _noise_group(plan, kind), _babble, len(speech_S), position)
        for kind, position in plan.noises
    )
    mixed_S = speech_S + noise_S * np.float32(speech_rms / rms(noise_S) * 10 ** (-plan.snr_db / 20))
    if other_S is not None:
        active = other_S[np.flatnonzero(other_S)]
        mixed_S += other_S * np.float32(speech_rms / rms(active) * 10 ** (-plan.interferer.sir_db / 20))
    peak = float(np.abs(mixed_S).max())
    gain = min(1.0, 0.98 / peak)
    samples_S = np.rint(mixed_S * np.float32(gain * 32768)) / np.float32(32768)
    return samples_S.astype(np.float32), _custom(plan, spans, wake_end, plan.level_dbfs + 20 * float(np.log10(gain)))


def _room(plan: UtterancePlan, rng: np.random.Generator) -> np.ndarray:
    return acoustics.room_response(plan.rt60_s, plan.direct_to_reverberant_db, rng)


def _noise_group(plan: UtterancePlan, kind: str) -> str:
    split = "train" if plan.split == "unlabelled" else plan.split
    return f"{split}/{plan.language}" if kind == "babble" else split


def _speak(plan: UtterancePlan) -> tuple[np.ndarray, list[tuple[int, int]], int | None, np.ndarray | None]:
    """Dry 16 kHz speech with its silences; the command's spans and the wake word's end in samples; the other
    talker on the same time line.
    """
    words = plan.text.split()
    pieces = [" ".join(words[: plan.words_before_pause]), " ".join(words[plan.words_before_pause :])]
    with espeak.fresh_library() as speak:

        def say(text: str) -> np.ndarray:
            name = espeak_name(plan.voice, plan.accent)
            return _trim(speak(text, name, plan.rate_wpm, plan.pitch, plan.pitch_range))

        wake = say(plan.wake_word) if plan.wake_word else None
        commands = [say(piece) for piece in pieces if piece]
        other = plan.interferer
        if other:
            other_speech = _trim(speak(other.text, espeak_name(other.voice, other.accent), other.rate_wpm))

    def silence(duration_s: float) -> np.ndarray:
        return np.zeros(int(duration_s * espeak.SAMPLE_RATE_HZ), np.int16)

    parts, spans, wake_end = [silence(plan.leading_s)], [], None
    if wake is not None:
        parts += [wake, silence(plan.wake_gap_s)]
        wake_end = len(parts[0]) + len(wake)
    for command in commands:
        if spans:
            parts.append(silence(plan.pause_s))
        start = sum(map(len, parts))
        spans.append((start, start + len(command)))
        parts.append(command)
    parts.append(silence(plan.trailing_s))
    dry = np.concatenate(parts)
    other_S = None
    if other:
        line = np.zeros(len(dry), np.int16)
        start = int(other.position * len(dry))
        begin, skip = max(start, 0), max(-start, 0)
        heard = other_speech[skip : skip + len(dry) - begin]
        line[begin : begin + len(heard)] = heard
        other_S = _resample(line) if len(heard) else None
    to_16k = [(_at_16k(start), _at_16k(end)) for start, end in spans]
    return _resample(dry), to_16k, None if wake_end is None else _at_16k(wake_end), other_S


def _at_16k(position: int) -> int:
    return position * SAMPLE_RATE_HZ // espeak.SAMPLE_RATE_HZ


def _resample(samples: np.ndarray) -> np.ndarray:
    return soxr.resample(samples.astype(np.float32) / np.float32(32768), espeak.SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, "MQ")


def _trim(samples: np.ndarray) -> np.ndarray:
    """Without the silence that espeak puts around speech (below -50 dB of the peak)."""
    level = np.abs(samples.astype(np.int32))
    loud = np.flatnonzero(level > level.max() * 0.003)
    return samples[loud[0] : loud[-1] + 1]


def _babble(group: str) -> np.ndarray:
    """A minute of six voices of the split talking at once, spoken from sentences of the grammar."""
    split, language = group.split("/")
    random = Random(group)
    length = acoustics.NOISE_BANK_S * SAMPLE_RATE_HZ // 2
    mixed = np.zeros(length, np.float32)
    with espeak.fresh_library() as speak:
        for _ in range(6):
            name = espeak_name(draw_voice(random, split), draw_accent(random, language))
            position = 0
            while position < length:
                speech = _resample(_trim(speak(_generator(language).draw(random).text, name, int(140 + 60 * random.random()))))
                part = speech[: length - position] / np.float32(rms(speech))
                mixed[position : position + len(part)] += part
                position += len(part) + int(SAMPLE_RATE_HZ * 0.3 * random.random())
    return mixed


def _custom(plan: UtterancePlan, spans: list[tuple[int, int]], wake_end: int | None, level_dbfs: float) -> dict:
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
        "wake_word_end_s": None if wake_end is None else round(wake_end / SAMPLE_RATE_HZ, 4),
        "speech_start_s": round(spans[0][0] / SAMPLE_RATE_HZ, 4),
        "speech_end_s": round(spans[-1][1] / SAMPLE_RATE_HZ, 4),
        "pause_s": plan.pause_s,
        "rt60_s": plan.rt60_s,
        "noise": "+".join(kind for kind, _ in plan.noises),
        "snr_db": plan.snr_db,
        "interferer_sir_db": plan.interferer.sir_db if plan.interferer else None,
        "interferer_voice": plan.interferer.voice if plan.interferer else None,
    }
