"""Write a recogniser as a folder for sherpa-onnx: encoder.onnx, decoder.onnx, joiner.onnx, tokens.txt.

    sherpa_onnx.OnlineRecognizer.from_transducer(tokens=…, encoder=…, decoder=…, joiner=…, feature_dim=64)

An independent program then hears what ours hears: same features, same states, same greedy search of one symbol per
frame. Two differences remain. sherpa-onnx decodes a chunk only when the first frame after it has come, and drops what
fills no chunk: end the audio with some silence. It takes `<unk>` for a blank, where ours lets the predictor see it
(no text comes of it in either).
"""

import uuid
from pathlib import Path

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.errors import UserError
from pipeline.features.frames import FEATURES_PER_FRAME, FRAME_MS
from pipeline.files import copy_atomically, remove_path
from pipeline.models.transducer import Transducer
from pipeline.runtime.onnx_graphs import encoder_graph, joiner_graph, predictor_graph

LARGEST_CHUNK_MS = 10_000
FILES = ("encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt")


def export(
    model: Transducer, tokenizer: Tokenizer, folder: str | Path, chunk_ms: int = FRAME_MS
) -> dict[str, int]:
    """Write the folder, whole or not at all, in place of an earlier export -> {file: size_bytes}.

    `chunk_ms`: audio that sherpa-onnx's encoder takes at once; more is faster per second and answers later. Raises
    UserError for an impossible chunk, an encoder that is no LSTM, a tokenizer of another size than the model's, or a
    folder that holds other things.
    """
    folder = Path(folder).absolute()  # "." has no name
    if not FRAME_MS <= chunk_ms <= LARGEST_CHUNK_MS or chunk_ms % FRAME_MS:
        raise UserError(f"chunk_ms: {chunk_ms} must be a multiple of {FRAME_MS}, at most {LARGEST_CHUNK_MS}")
    if tokenizer.vocab_size != model.config.vocab_size:
        raise UserError(
            f"tokenizer: its {tokenizer.vocab_size} tokens are not the model's {model.config.vocab_size}; give the "
            "tokenizer that the model was trained with"
        )
    graphs = {
        "encoder.onnx": encoder_graph(model, chunk_ms // FRAME_MS * FEATURES_PER_FRAME),
        "decoder.onnx": predictor_graph(model),
        "joiner.onnx": joiner_graph(model),
    }
    contents = {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}
    tokens = "".join(f"{piece} {index}\n" for index, (piece, _) in enumerate(tokenizer.pieces))
    _write_folder(folder, {**contents, "tokens.txt": tokens.encode()})
    return {name: (folder / name).stat().st_size for name in FILES}


def _write_folder(folder: Path, contents: dict[str, bytes]) -> None:
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        if folder.exists() and not (
            folder.is_dir() and {path.name for path in folder.iterdir()} <= set(FILES)
        ):
            raise UserError(f"{folder}: holds other things than an export; give a new or empty folder")
        temporary.mkdir(parents=True)
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        copy_atomically(temporary, folder, move=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another folder") from error
    finally:
        if temporary.exists():
            remove_path(temporary)
