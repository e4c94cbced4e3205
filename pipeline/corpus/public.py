"""Public corpora through lhotse's recipes: `data.source: librispeech`, `data.corpus_dir: /where/it/lies`.

A corpus is one line of `CORPORA`: a function from (folder, scratch folder, language) to lhotse's parts, each
a pair of recordings and supervisions. Part names that begin with train, dev (or valid) or test are the
splits; a corpus without parts is divided by a hash of its speakers (manifest.py). Nothing is downloaded.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from lhotse import recipes

from pipeline.corpus.manifest import Row, assign_splits, normalise_text
from pipeline.errors import UserError

Parts = dict[str, Any]
CORPORA: dict[str, Callable[[Path, Path, str], Parts]] = {
    "librispeech": lambda folder, _scratch, _language: recipes.prepare_librispeech(folder),
    "libritts": lambda folder, _scratch, _language: recipes.prepare_libritts(folder),
    "commonvoice": lambda folder, scratch, language: recipes.prepare_commonvoice(folder, scratch, [language])[
        language
    ],
    "speechcommands": lambda folder, scratch, _language: recipes.prepare_speechcommands("2", folder, scratch),
    "mls": lambda folder, _scratch, language: recipes.prepare_mls(folder)[_LANGUAGE_NAMES[language]],
    "tedlium": lambda folder, _scratch, _language: recipes.prepare_tedlium(folder),
    "voxpopuli": lambda folder, scratch, language: recipes.prepare_voxpopuli(folder, scratch, lang=language),
    "vctk": lambda folder, _scratch, _language: recipes.prepare_vctk(folder),
    "ljspeech": lambda folder, _scratch, _language: recipes.prepare_ljspeech(folder),
    "cmu_arctic": lambda folder, _scratch, _language: recipes.prepare_cmu_arctic(folder),
}
_LANGUAGE_NAMES = {
    "en": "english",
    "es": "spanish",
    "de": "german",
    "fr": "french",
    "it": "italian",
    "nl": "dutch",
}
_SPLIT_PREFIXES = {"train": "train", "dev": "dev", "valid": "dev", "test": "test"}


def read_public(
    name: str, corpus_dir: str | None, languages: Collection[str]
) -> tuple[list[Row], list[dict], Counter]:
    """Rows of a corpus, rejected utterances, counts; as `read_manifest` gives them.

    Raises UserError for an unknown corpus, a missing folder, or one that lhotse's recipe cannot read.
    """
    if name not in CORPORA:
        raise UserError(
            f"data.source: {name!r} is unknown; use synthetic, manifest or one of {', '.join(CORPORA)}"
        )
    if corpus_dir is None or not Path(corpus_dir).is_dir():
        raise UserError(f"data.corpus_dir: {corpus_dir} is no folder; it must hold the corpus {name}")
    language = sorted(languages)[0]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            parts = CORPORA[name](Path(corpus_dir), Path(scratch), language)
        except Exception as error:  # recipes raise whatever an unexpected folder leads them to
            reason = f"{type(error).__name__}: {error}".rstrip(":. ")
            raise UserError(
                f"data.corpus_dir: {corpus_dir} does not look like {name} to lhotse ({reason})"
            ) from error
    rows, rejected, seen = [], [], set()
    for part, supervisions, recordings in _parts(parts):
        for supervision in sorted(supervisions, key=lambda segment: segment.id):
            recording = recordings.get(supervision.recording_id)
            text = normalise_text(supervision.text or "")
            reason = (
                "empty text"
                if not text
                else "duplicate id; the first is kept"
                if supervision.id in seen
                else None
            )
            if reason or recording is None:
                reason = reason or "no recording"
                rejected.append({"file": part, "line": None, "id": supervision.id, "reason": reason})
                continue
            seen.add(supervision.id)
            audio = Path(recording.sources[0].source)
            rows.append(
                Row(
                    line=0,
                    id=supervision.id,
                    audio=audio,
                    text=text,
                    speaker=supervision.speaker or supervision.id,
                    language=language,
                    duration_s=supervision.duration,
                    split=next((s for prefix, s in _SPLIT_PREFIXES.items() if part.startswith(prefix)), ""),
                    source=name,
                    start_s=supervision.start,
                )
            )
    if not rows:
        raise UserError(
            f"data.corpus_dir: {corpus_dir} has no usable utterance of {name} ({len(rejected)} rejected)"
        )
    return assign_splits(rows), rejected, Counter()


def _parts(parts: Parts) -> Iterator[tuple[str, Any, dict]]:
    """(part name, supervisions, recordings by id) of every part; a corpus without parts is one nameless
    part.
    """
    if "supervisions" in parts:
        parts = {"": parts}
    for name in sorted(parts):
        if parts[name].get("supervisions") is not None:
            yield name, parts[name]["supervisions"], {r.id: r for r in parts[name]["recordings"]}
