"""Word errors: one normaliser, one alignment per utterance, one table that everything else is computed from.

Alignments are Kaldi's (kaldialign, unit costs); `tests/test_evaluation.py` checks the counts against jiwer
and against a slow dynamic programme. Errors are substitutions S, deletions D and insertions I;
WER = 100 (S + D + I) / words.
"""

import json
import unicodedata

import kaldialign
import pandas as pd

NORMALISER = "sotto-1"  # stored with every result: two WERs compare only under one normaliser

# What a record may say about its conditions; each is a column, empty where a corpus is silent.
CONDITIONS = (
    "intent", "voice", "accent", "language", "source", "snr_db", "rt60_s", "interferer_sir_db", "noise",
    "whisper", "pause_s", "wake_word_end_s", "names", "name_rank", "unseen_name", "rare_words",
)  # fmt: skip
NOISY_SNR_DB = 12.0


def normalise(text: str) -> str:
    """Lower case, no punctuation, apostrophes kept inside words, single spaces. Idempotent."""
    text = unicodedata.normalize("NFC", text.lower()).replace("’", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(word for word in (word.strip("'") for word in kept.split()) if word)


def align(reference: str, hypothesis: str) -> list[tuple[str | None, str | None]]:
    """Word pairs of a cheapest alignment; None on the left is an insertion, on the right a deletion."""
    pairs = kaldialign.align(reference.split(), hypothesis.split(), "")
    return [(left or None, right or None) for left, right in pairs]


def count_errors(reference: str, hypothesis: str) -> dict[str, int]:
    """`words`, `S`, `D`, `I` of one utterance, both sides normalised. An empty reference has 0 words."""
    reference, hypothesis = normalise(reference), normalise(hypothesis)
    pairs = align(reference, hypothesis)
    return {
        "words": len(reference.split()),
        "S": sum(left is not None and right is not None and left != right for left, right in pairs),
        "D": sum(right is None for _, right in pairs),
        "I": sum(left is None for left, _ in pairs),
    }


def utterance_record(cut) -> dict:
    """Id, speaker, reference, duration and conditions of a lhotse cut with one supervision."""
    supervision = cut.supervisions[0]
    custom = {**(cut.custom or {}), **(supervision.custom or {})}
    custom.setdefault("language", supervision.language)
    record = {name: custom.get(name) for name in CONDITIONS}
    for name in ("names", "rare_words"):
        words = record[name] or []
        record[name] = words if isinstance(words, str) else " ".join(words)
    return {
        "id": cut.id,
        "speaker": supervision.speaker or cut.id,
        "reference": supervision.text or "",
        "duration_s": cut.duration,
        **record,
        "slots": json.dumps(custom.get("slots") or {}, ensure_ascii=False, sort_keys=True),
    }


def utterance_table(
    records: list[dict], hypotheses: dict[str, str], model: str, noisy_snr_db: float = NOISY_SNR_DB
) -> pd.DataFrame:
    """One row per utterance: its record, the hypothesis, words, S, D, I, errors and its WER (percent).

    Raises KeyError where a record has no hypothesis: an utterance that was not decoded must not vanish from
    the WER.
    """
    rows = []
    for record in records:
        heard = hypotheses[record["id"]]
        counts = count_errors(record["reference"], heard)
        errors = counts["S"] + counts["D"] + counts["I"]
        counts |= count_name_errors(record["reference"], heard, record.get("names") or "")
        rate = 100.0 * errors / max(1, counts["words"])
        said = {"hypothesis": normalise(heard), **counts, "errors": errors, "wer": rate}
        rows.append({"model": model, **record, **said})
    table = pd.DataFrame(rows)
    for name in ("snr_db", "rt60_s", "interferer_sir_db", "pause_s", "name_rank"):
        if name in table:
            table[name] = pd.to_numeric(table[name], errors="coerce").astype("float64")
    table["reference"] = table["reference"].map(normalise)
    table["noisy"] = is_noisy(table, noisy_snr_db)
    return table


def is_noisy(table: pd.DataFrame, noisy_snr_db: float = NOISY_SNR_DB) -> pd.Series:
    """The harder part of a test set: a low signal-to-noise ratio or somebody else talking."""
    return (table["snr_db"] < noisy_snr_db) | table["interferer_sir_db"].notna()


def count_name_errors(reference: str, hypothesis: str, names: str) -> dict[str, int]:
    """`name_words` of the reference that stand in `names`, and how many of them were not recognised."""
    wanted = set(normalise(names).split())
    pairs = [pair for pair in align(normalise(reference), normalise(hypothesis)) if pair[0] in wanted]
    return {"name_words": len(pairs), "name_errors": sum(left != right for left, right in pairs)}


def name_error_rate(table: pd.DataFrame) -> float:
    """Percent of the references' name words that were not recognised (insertions elsewhere do not count)."""
    return 100.0 * float(table["name_errors"].sum()) / max(1, int(table["name_words"].sum()))


def wer(table: pd.DataFrame) -> float:
    """Corpus WER in percent: all errors over all words."""
    return 100.0 * float(table["errors"].sum()) / max(1, int(table["words"].sum()))


def wer_by(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """WER, S, D, I, words and utterances for each value of `column`, the worst first."""
    groups = table.groupby(column, observed=True, dropna=True)
    result = groups[["words", "S", "D", "I", "errors"]].sum().assign(utterances=groups.size())
    result["wer"] = 100.0 * result["errors"] / result["words"].clip(lower=1)
    return result.sort_values("wer", ascending=False)


def confusions(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of (kind, reference word, hypothesis word) over a table, the most frequent first."""
    found = [
        ("D" if right is None else "I" if left is None else "S", left or "", right or "")
        for reference, hypothesis in zip(table["reference"], table["hypothesis"], strict=True)
        for left, right in align(reference, hypothesis)
        if left != right
    ]
    frame = pd.DataFrame(found, columns=["kind", "reference", "hypothesis"])
    counts = frame.value_counts(["kind", "reference", "hypothesis"]).rename("count").reset_index()
    return counts.sort_values(
        ["count", "kind", "reference", "hypothesis"], ascending=[False, True, True, True]
    )


def alignment_html(reference: str, hypothesis: str) -> str:
    """The alignment as one line of HTML: substitutions orange, deletions struck through, insertions blue."""
    words = []
    for left, right in align(reference, hypothesis):
        if left == right:
            words.append(left)
        elif right is None:
            words.append(f'<s style="color:#b2182b">{left}</s>')
        elif left is None:
            words.append(f'<span style="color:#2166ac">+{right}</span>')
        else:
            words.append(f'<span style="color:#d6730a">{left}→{right}</span>')
    return " ".join(words)
