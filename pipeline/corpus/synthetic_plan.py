"""What is drawn about every utterance of the synthetic corpus before anything is spoken.

Splits: voices by the lists of `voices.py`; sentences by a hash of their text (a dev or test sentence never
occurs in train or unlabelled, and occurs once); every fifth name of a list never occurs in train or
unlabelled, and a fifth of the dev and test sentences with names have one of those.
"""

import itertools
import zlib
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from pipeline.corpus.acoustics import NOISE_KINDS
from pipeline.corpus.grammar import Generator, Sentence
from pipeline.corpus.grammar_en import ENGLISH
from pipeline.corpus.grammar_es import SPANISH
from pipeline.corpus.voices import VOICES, draw_accent, draw_voice
from pipeline.errors import UserError

LANGUAGES = {"en": ENGLISH, "es": SPANISH}
WAKE_WORDS = {"en": ("sotto", "computer"), "es": ("sotto", "computadora")}
# language → (seconds per utterance, per letter) at 170 words a minute, fitted to 500 utterances
_EXPECTED_S = {"en": (0.264, 0.0482), "es": (0.223, 0.0536)}
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
    """Another talker: what, who, from which fraction of the command on, and how far below the command."""

    text: str
    voice: str
    accent: str
    rate_wpm: int
    position: float
    sir_db: float


@dataclass(frozen=True)
class UtterancePlan:
    """Everything there is to know of an utterance before it is spoken; from `seed`, `synthetic.render`
    draws only the noise in rooms and whispers.
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
        sentence = generator(language).draw(random, wants_unseen)
        if zlib.crc32(sentence.text.encode()) % 16 in _BUCKETS[split] and sentence.text not in used:
            break
    if heldout:
        used.add(sentence.text)
    return sentence


def _draw_conditions(
    random: Random, language: str, split: str, index: int, sentence: Sentence
) -> UtterancePlan:
    def uniform(low: float, high: float, digits: int = 2) -> float:
        return round(low + (high - low) * random.random(), digits)

    def happens(share: float) -> bool:
        return random.random() < share

    voice = draw_voice(random, split)
    num_words = len(sentence.text.split())
    rate_wpm = int(uniform(140, 200, 0))
    wake_words = WAKE_WORDS[language]
    wake_word = wake_words[int(random.random() * len(wake_words))] if happens(WAKE_SHARE) else None
    wake_gap_s = uniform(0.1, 0.4)
    pause_s = uniform(0.2, 0.6) if happens(PAUSE_SHARE) and num_words > 2 else None
    whisper = happens(WHISPER_SHARE)
    leading_s, trailing_s = uniform(0.05, 0.3), uniform(0.25, 0.5)
    interferer = None
    if happens(INTERFERER_SHARE):
        other = generator(language).draw(random)
        interferer = Interferer(
            other.text,
            _other_voice(random, split, voice),
            draw_accent(random, language),
            int(uniform(140, 200, 0)),
            uniform(-0.4, 0.8, 3),
            uniform(8, 25, 1),
        )
    noises = [_draw_noise(random)] + ([_draw_noise(random)] if happens(SECOND_NOISE_SHARE) else [])
    speech_s = _expected_speech_s(sentence.text, language, rate_wpm) + (pause_s or 0)
    wake_s = _expected_speech_s(wake_word, language, rate_wpm) + wake_gap_s if wake_word else 0
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
        direct_to_reverberant_db=uniform(3, 15, 1),
        noises=tuple(noises),
        snr_db=uniform(5, 30, 1),
        interferer=interferer,
        seed=int(random.random() * 2**52),
        expected_s=leading_s + wake_s + speech_s + trailing_s,
    )


def _other_voice(random: Random, split: str, voice: str) -> str:
    while (other := draw_voice(random, split)) == voice:
        pass
    return other


def _draw_noise(random: Random) -> tuple[str, float]:
    kinds = list(NOISE_KINDS)
    edges = list(itertools.accumulate(NOISE_KINDS.values()))
    position = random.random()
    return kinds[sum(position >= edge for edge in edges[:-1])], random.random()


def _expected_speech_s(text: str, language: str, rate_wpm: int) -> float:
    base_s, letter_s = _EXPECTED_S[language]
    return (base_s + letter_s * len(text)) * 170 / rate_wpm


@lru_cache
def generator(language: str) -> Generator:
    """The sentence generator of "en" or "es"."""
    return Generator(LANGUAGES[language])
