"""Subword tokens: a sentencepiece byte-pair model with the blank as token 0.

Ids: 0 `<blk>` (blank, and the padding of label tensors), 1 `<unk>`, then the pieces. There is no begin or end
token. The scores of a byte-pair model are the negated ranks of its merges, so that a list of (piece, score)
is the whole model: `Tokenizer.from_pieces` rebuilds it from the kilobyte that the packed bundle stores.
"""

import functools
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from pipeline.errors import UserError

BLANK, UNKNOWN = "<blk>", "<unk>"
SPACE = "\u2581"  # sentencepiece's sign for the beginning of a word


class Tokenizer:
    """Text (lower case, no punctuation) to token ids and back."""

    blank_id = 0
    unknown_id = 1

    def __init__(self, model: bytes):
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        ids = range(self._processor.vocab_size())
        self.pieces: list[tuple[str, float]] = [
            (self._processor.id_to_piece(i), self._processor.get_score(i)) for i in ids
        ]

    @classmethod
    def from_model(cls, path: str | Path) -> "Tokenizer":
        """Load a `tokenizer.model`; UserError if it is no sentencepiece model with `<blk>` as token 0."""
        try:
            tokenizer = cls(Path(path).read_bytes())
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: not a readable sentencepiece model ({type(error).__name__})") from error
        if [piece for piece, _ in tokenizer.pieces[:2]] != [BLANK, UNKNOWN]:
            raise UserError(
                f"{path}: its first tokens must be {BLANK} and {UNKNOWN}; run `dvc repro prepare`"
            )
        return tokenizer

    @classmethod
    def from_pieces(cls, pieces: Sequence[tuple[str, float]]) -> "Tokenizer":
        """The tokenizer whose `pieces` these are: same ids for every text."""
        if [piece for piece, _ in pieces[:2]] != [BLANK, UNKNOWN]:
            raise UserError(f"a token list must begin with {BLANK} and {UNKNOWN}")
        proto = ModelProto()
        kinds = ModelProto.SentencePiece.Type
        for index, (piece, score) in enumerate(pieces):
            kind = {0: kinds.CONTROL, 1: kinds.UNKNOWN}.get(index, kinds.NORMAL)
            proto.pieces.add(piece=piece, score=score, type=kind)
        spec = proto.trainer_spec
        spec.model_type = type(spec).ModelType.BPE
        spec.vocab_size = len(pieces)
        spec.pad_id, spec.pad_piece, spec.unk_id, spec.unk_piece = 0, BLANK, 1, UNKNOWN
        spec.bos_id = spec.eos_id = -1
        proto.normalizer_spec.name = "identity"
        return cls(proto.SerializeToString())

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of pieces and scores: equal for equal tokenizers, however they were loaded."""
        return hashlib.sha256(json.dumps(self.pieces).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each; a call costs more than the spelling, and a thread for each core more than all of a list."""
        return self._processor.encode(list(texts), num_threads=1) if texts else []

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids. Blank and unknown tokens have none (as in sherpa-onnx)."""
        return "".join(self.pieces[i][0] for i in ids if i > self.unknown_id).replace(SPACE, " ").strip()


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """Train on texts, in one thread: same texts, same bytes.

    Raises UserError if the texts are too few, or have too many letters, for `vocab_size` tokens.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            pad_id=Tokenizer.blank_id,
            pad_piece=BLANK,
            unk_id=Tokenizer.unknown_id,
            unk_piece=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            input_sentence_size=0,
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).split("] ")[-1].strip().rstrip(".")
        raise UserError(
            f"prepare.vocab_size: {vocab_size} tokens do not fit the training texts ({reason})"
        ) from error
    return model.getvalue()
