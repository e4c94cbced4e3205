"""Sentences without sound: the transcripts of a prepared split, and more of the kind from the synthetic grammar.

What is drawn follows the rule of the corpus for its training split: a hash of the text keeps every dev and test
sentence out, and names that are kept from training stay out too (`synthetic_plan`).
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.corpus.synthetic_plan import SyntheticConfig, plan
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


def drawn_sentences(language: str, hours: float, seed: int, skip: int = 0) -> list[LabelledSentence]:
    """Training sentences of the synthetic grammar that would take about `hours` to say (some 1,300 an hour).

    With the corpus's own seed the first ones are its training transcripts: `skip` leaves out so many.
    """
    plans = plan(SyntheticConfig(language), "train", hours, seed)
    return [LabelledSentence(each.text, each.intent) for each in plans[skip:]]
