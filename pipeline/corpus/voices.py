"""espeak-ng's voice variants as speakers, split so that no test or dev speaker (nor a near twin) is trained.

Variants that differ in little (steph, steph2, steph3; the iven, klatt and Gene families; Andy, AnxiousAndy
and Lee; m7, m8 and Nguyen; aunty, linda and belinda; …) stay on one side. Left out of the wheel's 106
variants:
- no human: Demonic, Storm, UniRobot, anikaRobot, announcer, croak, robosoft…robosoft8, zac (a cartoon child);
- long echoes, which `acoustics.py` simulates instead: RicishayMax, RicishayMax2, RicishayMax3;
- whispers, which `acoustics.whisper` simulates for every speaker: whisper, whisperf, caleb;
- `fast`, a test of the rate limit; Reed, whose breath noise comes from the C library's own generator.
"""

from random import Random

TRAIN = """
Alicia Andy AnxiousAndy Jacky Lee Marco Mario Mike Tweaky adam anika antonio edward edward2 f1 f4 grandma
grandpa gustave iven iven2 iven3 iven4 klatt klatt2 klatt3 klatt4 klatt5 klatt6 m1 m3 marcelo michel miguel
mike2 norbert pablo quincy robert sandro shelby steph steph2 steph3
""".split()
DEV = "Annie Denis benjamin f3 ian john kaukovalta m4 victor".split()
TEST = (
    """
Alex Andrea Diogo Gene Gene2 Henrique Hugo Michael Nguyen aunty belinda boris david ed f2 f5 linda m2 m5 m6 m7
m8 max paul pedro rob travis
""".split()
    + ["Mr serious"]
)

VOICES = {"train": TRAIN, "unlabelled": TRAIN, "dev": DEV, "test": TEST}

# accent (a language file of espeak; "en" is British) → share
ACCENTS = {
    "en": {
        "en-us": 0.5,
        "en": 0.2,
        "en-gb-x-rp": 0.15,
        "en-us-nyc": 0.15,
    },
    "es": {"es": 0.5, "es-419": 0.5},
}


def draw_voice(random: Random, split: str) -> str:
    """A variant of `split`, each equally likely."""
    return VOICES[split][int(random.random() * len(VOICES[split]))]


def draw_accent(random: Random, language: str) -> str:
    """An accent of `language` by its share."""
    position = random.random()
    for accent, share in ACCENTS[language].items():
        position -= share
        if position < 0:
            return accent
    return accent


def espeak_name(voice: str, accent: str) -> str:
    """What espeak calls this speaker, such as "en-us+f3"."""
    return f"{accent}+{voice}"
