"""params.yaml → frozen dataclasses, one per stage. Every key must be there, none may be extra.

`python -m pipeline.params` checks the file. Keys mean the same wherever they stand, so CHECKS goes by key
name; the config classes of lower layers are imported only when a file is read: some of them import torch.
"""

import difflib
import importlib
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pipeline.errors import UserError
from pipeline.files import read_yaml

if TYPE_CHECKING:
    from pipeline.corpus.prepare import DataConfig, PrepareConfig
    from pipeline.decoding.lexicon import LexiconWeights
    from pipeline.features.augment import SpecAugmentConfig
    from pipeline.features.fbank import FbankConfig
    from pipeline.features.perturb import PerturbConfig
    from pipeline.language.config import LanguageModelConfig, LanguageTrainerConfig
    from pipeline.models.config import TransducerConfig
    from pipeline.training.config import TrainerConfig

LAZY_TYPES = {
    "DataConfig": "pipeline.corpus.prepare",
    "PrepareConfig": "pipeline.corpus.prepare",
    "LexiconWeights": "pipeline.decoding.lexicon",
    "SpecAugmentConfig": "pipeline.features.augment",
    "FbankConfig": "pipeline.features.fbank",
    "PerturbConfig": "pipeline.features.perturb",
    "LanguageModelConfig": "pipeline.language.config",
    "LanguageTrainerConfig": "pipeline.language.config",
    "TransducerConfig": "pipeline.models.config",
    "TrainerConfig": "pipeline.training.config",
}
STAGES = (
    "prepare", "lexicon", "teacher", "label", "student", "sparsify", "qat", "pack", "evaluate", "report",
    "language_model", "stream",
)  # fmt: skip
SHARED = ("seed", "data", "features")
SPLITS = ("train", "unlabelled", "dev", "test")
Compressible = Literal["student", "sparsify", "qat"]
T = TypeVar("T")


@dataclass(frozen=True)
class PrepareParams:
    seed: int
    data: "DataConfig"
    features: "FbankConfig"
    prepare: "PrepareConfig"


@dataclass(frozen=True)
class LexiconParams:
    """`max_words`: the most frequent ones of the training transcripts; `min_history`: how often two classes must have
    been seen side by side for what follows both to be counted; `weights`: those of the search.
    """

    max_words: int
    num_classes: int
    min_history: int
    weights: "LexiconWeights"


@dataclass(frozen=True)
class ModelParams:
    """`teacher` and `student`. `init_from`: the hand-off folder of another run's model, whose encoder this one begins
    with.
    """

    seed: int
    features: "FbankConfig"
    model: "TransducerConfig"
    losses: dict[str, float]
    augment: "SpecAugmentConfig"
    perturb: "PerturbConfig"
    trainer: "TrainerConfig"
    init_from: str | None


@dataclass(frozen=True)
class LabelParams:
    seed: int
    features: "FbankConfig"
    top_k: int
    shard_size: int
    batch_seconds: float
    min_confidence_quantile: float
    precision: Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True)
class CompressParams:
    """`sparsify` and `qat`: train on from `after`. `levels` or `sparsity` null: as `after` left it.

    `bits`: entropy a weight, spread over rows by what rounding them costs; null: steps of least squared error.
    """

    seed: int
    features: "FbankConfig"
    after: Compressible
    sparsity: float | None
    levels: int | None
    bits: float | None
    losses: dict[str, float]
    augment: "SpecAugmentConfig"
    perturb: "PerturbConfig"
    trainer: "TrainerConfig"


@dataclass(frozen=True)
class PackParams:
    features: "FbankConfig"
    after: Compressible


@dataclass(frozen=True)
class LanguageModelParams:
    """`drawn_hours`: sentences of the synthetic grammar beside the transcripts, as many as take so long to say."""

    seed: int
    data: "DataConfig"
    drawn_hours: float
    model: "LanguageModelConfig"
    trainer: "LanguageTrainerConfig"


@dataclass(frozen=True)
class EvaluateParams:
    seed: int
    features: "FbankConfig"
    batch_seconds: float
    noisy_snr_db: float
    bootstrap_replicates: int


@dataclass(frozen=True)
class StreamParams:
    """`…_utterances`: how many of each set, evenly spread; `silence_s`: background put behind each.

    `phrase_scores`, `phrase_unknown_scores`, `phrase_size_costs`: what `PhraseBonus` is chosen from.
    """

    seed: int
    train_utterances: int
    dev_utterances: int
    test_utterances: int
    timed_utterances: int
    epochs: int
    silence_s: float
    max_early_cut: float
    gap_ms: float
    max_revision: float
    downstream_ms: float
    phrase_scores: tuple[float, ...]
    phrase_unknown_scores: tuple[float, ...]
    phrase_size_costs: tuple[float, ...]
    bootstrap_replicates: int


@dataclass(frozen=True)
class ReportParams:
    worst_utterances: int


STAGE_TYPES: dict[str, type] = {
    "prepare": PrepareParams, "lexicon": LexiconParams, "teacher": ModelParams, "label": LabelParams,
    "student": ModelParams, "sparsify": CompressParams, "qat": CompressParams, "pack": PackParams,
    "evaluate": EvaluateParams, "report": ReportParams, "language_model": LanguageModelParams, "stream": StreamParams,
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A condition on a value and the words that complete 'must be …'."""

    holds: Callable[[Any], bool]
    meaning: str


COUNT = Check(lambda v: v >= 1, "at least 1")
POSITIVE = Check(lambda v: v > 0, "more than 0")
NOT_NEGATIVE = Check(lambda v: v >= 0, "0 or more")
FRACTION = Check(lambda v: 0 <= v < 1, "at least 0 and below 1")
CHECKS = {
    "seed": NOT_NEGATIVE, "losses": NOT_NEGATIVE,
    "hours": NOT_NEGATIVE, "train": POSITIVE, "dev": POSITIVE, "test": POSITIVE,
    "num_mel_bins": Check(lambda v: 8 <= v <= 256, "between 8 and 256"),
    "vocab_size": Check(lambda v: 32 <= v <= 65535, "between 32 and 65535"),
    "num_workers": NOT_NEGATIVE, "shard_size": COUNT, "top_k": COUNT,
    "min_confidence_quantile": FRACTION, "sparsity": FRACTION, "dropout": FRACTION,
    "levels": Check(lambda v: 3 <= v <= 255 and v % 2 == 1, "an odd number of levels between 3 and 255"),
    "bits": Check(lambda v: 0 < v <= 8, "more than 0 and at most 8"),
    "epochs": COUNT, "batch_seconds": POSITIVE, "peak_lr": POSITIVE, "weight_decay": NOT_NEGATIVE,
    "gradient_clip": POSITIVE, "warmup_share": FRACTION, "bootstrap_replicates": COUNT,
    "drawn_hours": NOT_NEGATIVE, "batch_sentences": COUNT, "embedding_width": COUNT,
    "train_utterances": COUNT, "dev_utterances": COUNT, "test_utterances": COUNT,
    "timed_utterances": COUNT, "silence_s": NOT_NEGATIVE, "max_early_cut": FRACTION, "gap_ms": NOT_NEGATIVE,
    "max_revision": FRACTION, "downstream_ms": NOT_NEGATIVE, "max_words": NOT_NEGATIVE,
    "num_classes": Check(lambda v: 1 <= v <= 1000, "between 1 and 1000"),
    "min_history": COUNT, "oov_penalty": NOT_NEGATIVE, "scale": NOT_NEGATIVE,
    "width": COUNT, "joiner_width": COUNT, "num_layers": COUNT, "num_heads": COUNT, "channels": COUNT,
}  # fmt: skip


def load_params(stage: str, path: str | Path = "params.yaml") -> Any:
    """The parameters of `stage` as its frozen dataclass; the whole file is checked first.

    Raises UserError for an unreadable file, an unknown or missing key, a wrong type, or an impossible value.
    """
    return load_all(path)[stage]


def load_all(path: str | Path = "params.yaml") -> dict[str, Any]:
    """Stage name → its frozen dataclass, for every stage of the file."""
    return from_mapping(read_yaml(path), Path(path).name)


def from_mapping(file: Mapping[str, Any], name: str) -> dict[str, Any]:
    """As `load_all`, from the content of a file that errors call `name`."""
    _check_names(file, SHARED + STAGES, (), name)
    loaded: dict[str, Any] = {}
    for stage in STAGES:
        stage_type = STAGE_TYPES[stage]
        shared = {key: file[key] for key in SHARED if key in _types(stage_type)}
        section = {"prepare": file[stage]} if stage == "prepare" else file[stage]
        if not isinstance(section, Mapping):
            raise UserError(f"{name}: {stage} must be a section of keys, not {section!r}.")
        for key in set(section) & set(SHARED):
            raise UserError(f"{name}: unknown key {stage}.{key}; {key} stands at the top level.")
        where = "" if stage == "prepare" else stage
        given = {key: _value(value, _types(stage_type)[key], key, name) for key, value in shared.items()}
        loaded[stage] = build(stage_type, section, where, name, given)
    _check_names(loaded["prepare"].data.hours, SPLITS, (), name, "data.hours")
    _check_order({stage: loaded[stage].after for stage in ("sparsify", "qat", "pack")}, name)
    return loaded


def build(
    cls: type[T], mapping: Any, where: str, file: str = "params.yaml", given: Mapping | None = None
) -> T:
    """Make the dataclass `cls` from a mapping; `where` is its dotted place, `given` fields come ready.

    Raises UserError naming the key. A field whose default is None may be left out; no other may.
    """
    given = dict(given or {})
    if not isinstance(mapping, Mapping):
        raise UserError(f"{file}: {where} must be a section of keys, not {mapping!r}.")
    types_ = {key: kind for key, kind in _types(cls).items() if key not in given}
    optional = [field.name for field in fields(cls) if field.default is None]  # type: ignore[arg-type]
    _check_names(mapping, types_, optional, file, where)
    for key, value in mapping.items():
        given[key] = _value(value, types_[key], f"{where}.{key}" if where else key, file)
    try:
        return cls(**given)
    except (ValueError, UserError) as error:
        raise UserError(f"{file}: {where}: {error}") from error


def unknown_key(key: str, known: Any, place: str) -> str:
    """The sentence about a key that is not among `known`, with the nearest known one."""
    near = difflib.get_close_matches(str(key), [str(name) for name in known], n=1)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(map(str, known))}."
    return f"{place}; {hint}"


def _check_names(mapping: Mapping, known: Any, optional: Any, file: str, where: str = "") -> None:
    prefix = f"{where}." if where else ""
    for key in mapping:
        if key not in known:
            raise UserError(unknown_key(key, known, f"{file}: unknown key {prefix}{key}"))
    for key in known:
        if key not in mapping and key not in optional:
            raise UserError(f"{file}: missing key {prefix}{key}; every key must be given.")


def _check_order(after: dict[str, str], file: str) -> None:
    for start in after:
        stage, seen = start, [start]
        while stage != "student":
            stage = after[stage]
            if stage in seen:
                chain = " → ".join([*seen, stage])
                raise UserError(
                    f"{file}: {start}.after goes in a circle ({chain}); one of them must follow student."
                )
            seen.append(stage)


def _types(cls: Any) -> dict[str, Any]:
    """Field name → type; names of lazily imported classes are resolved here."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, hint in vars(base).get("__annotations__", {}).items():
            if isinstance(hint, str) and hint in LAZY_TYPES and base.__module__ == __name__:
                hint = getattr(importlib.import_module(LAZY_TYPES[hint]), hint)
            elif isinstance(hint, str):
                hint = typing.get_type_hints(base)[name]
            hints[name] = hint
    return {field.name: hints[field.name] for field in fields(cls)}


def _value(value: Any, kind: Any, where: str, file: str) -> Any:
    """`value` checked against the annotation `kind` and the table of CHECKS."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        if len(kinds) == 1:
            return _value(value, kinds[0], where, file)
        return _first_that_fits(value, kinds, where, file)
    if is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, where, file)
    if origin is Literal:
        if value not in arguments:
            raise UserError(
                f"{file}: {where} must be one of {', '.join(map(str, arguments))}, not {value!r}."
            )
        return value
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{file}: {where} must be a section of keys, not {value!r}.")
        return {str(key): _value(item, arguments[1], f"{where}.{key}", file) for key, item in value.items()}
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise UserError(f"{file}: {where} must be a list, not {value!r}.")
        return origin(_value(item, arguments[0], f"{where}[{n}]", file) for n, item in enumerate(value))
    return _scalar(value, kind, where, file)


def _first_that_fits(value: Any, kinds: list, where: str, file: str) -> Any:
    errors = []
    for kind in kinds:
        try:
            return _value(value, kind, where, file)
        except UserError as error:
            errors.append(error)
    raise errors[-1]


def _scalar(value: Any, kind: Any, where: str, file: str) -> Any:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = kind is Any or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))
    if not fits or (kind is float and not math.isfinite(value)):
        raise UserError(f"{file}: {where} must be {words.get(kind, kind)}, not {value!r}.")
    for key in where.split("."):
        check = CHECKS.get(key.split("[")[0])
        if check and isinstance(value, (int, float)) and not check.holds(value):
            raise UserError(f"{file}: {where} must be {check.meaning}, not {value!r}.")
    return value


def main() -> None:
    """Check the file named on the command line, or params.yaml."""
    try:
        load_all(sys.argv[1] if len(sys.argv) > 1 else "params.yaml")
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
