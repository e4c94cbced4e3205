"""What is said in a prepared split, without its audio: its transcripts, and the words that they know."""

import gzip
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError


@dataclass(frozen=True)
class LabelledSentence:
    """`intent`: what the command is about, None where a corpus does not say."""

    text: str
    intent: str | None


def transcripts(folder: str | Path) -> list[LabelledSentence]:
    """The transcripts of a split of `data/prepare`, in its order; utterances without one are left out.

    Reads the tables of the shards alone, so that no audio is loaded. Raises UserError if there are none.
    """
    tables = sorted(Path(folder).glob("cuts.*.jsonl.gz"))
    if not tables:
        raise UserError(f"{folder}: expected shards with cuts; run `dvc repro prepare`")
    found = []
    for table in tables:
        for line in gzip.open(table, "rt", encoding="utf-8"):
            for supervision in json.loads(line)["supervisions"]:
                if supervision.get("text"):
                    intent = (supervision.get("custom") or {}).get("intent")
                    found.append(LabelledSentence(supervision["text"], intent))
    return found


def known_words(folder: str | Path, max_words: int) -> list[str]:
    """The `max_words` most frequent words of a split's transcripts, in alphabetical order. Raises as `transcripts`."""
    counts = Counter(word for sentence in transcripts(folder) for word in sentence.text.split())
    return sorted(sorted(counts, key=lambda word: (-counts[word], word))[:max_words])
