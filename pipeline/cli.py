"""`sotto`: use a packed recogniser from the command line.

    sotto transcribe FILES… [--model PATH] [--json]
    sotto listen FILE|- [--realtime] [--phrases FILE] [--json]
    sotto inspect FILE.sotto [--json]
    sotto serve [--model FOLDER] [--recogniser FILE.sotto] [--host HOST] [--port PORT]
    sotto export FOLDER [--model PATH] [--chunk-ms 80]

A user's mistake is one sentence on stderr and exit code 2. Nothing heavy is imported before a command runs,
so that `sotto --help` answers at once.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A streaming speech recogniser in one small file.",
)
ROOT = Path(__file__).resolve().parent.parent
RUN_MODEL, RELEASED_MODEL = Path("data/pack/model.sotto"), ROOT / "release/model.sotto"
RUN_LANGUAGE_MODEL = Path("data/language_model")


@app.command()
def transcribe(
    files: Annotated[
        list[Path], typer.Argument(help="Audio files: WAV, FLAC, Ogg, MP3; any rate, any channels.")
    ],
    model: Annotated[
        Path | None, typer.Option(help="Packed recogniser; default: your last run's, else the released one.")
    ] = None,
    from_s: Annotated[
        float, typer.Option(help="Second to search from: where a wake word ended. Before it is only heard.")
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per file: text, tokens with times, …")
    ] = False,
) -> None:
    """Write what is said in each file."""
    from pipeline.runtime.audio import read_audio
    from pipeline.runtime.bundle import load_packed
    from pipeline.runtime.recognise import transcribe as recognise

    packed = load_packed(model or default_model())
    failed = False
    for file in files:
        try:
            transcript = recognise(packed, read_audio(file), from_s)
        except UserError as error:
            failed = True
            print(f"sotto: {error}", file=sys.stderr)
            continue
        if as_json:
            print(json.dumps(_as_record(file, transcript), ensure_ascii=False), flush=True)
        else:
            print(transcript.text if len(files) == 1 else f"{file}\t{transcript.text}", flush=True)
    if failed:
        raise typer.Exit(2)


@app.command()
def listen(
    source: Annotated[str, typer.Argument(help="An audio file, or - for raw PCM (s16le) on standard input.")],
    model: Annotated[
        Path | None, typer.Option(help="Packed recogniser; default: your last run's, else the released one.")
    ] = None,
    endpointer: Annotated[
        Path | None, typer.Option(help="Its end-pointer; default: the same run's, else a rule on silence.")
    ] = None,
    phrases: Annotated[
        Path | None, typer.Option(help="Phrases to expect, one a line (`pipeline/runtime/phrases.py`).")
    ] = None,
    phrase_score: Annotated[
        float | None,
        typer.Option(help="Their bonus, nats a token, however many; default: as the same run found best."),
    ] = None,
    realtime: Annotated[bool, typer.Option(help="As fast as a microphone, not as fast as possible.")] = False,
    rate_hz: Annotated[int, typer.Option(help="Sample rate of raw PCM.")] = 16_000,
    channels: Annotated[int, typer.Option(help="Channels of raw PCM, interleaved.")] = 1,
    chunk_ms: Annotated[
        int, typer.Option(help="Audio taken at a time; the result does not depend on it.")
    ] = 80,
    from_s: Annotated[
        float, typer.Option(help="Second to search from: where a wake word ended. Before it is only heard.")
    ] = 0.0,
    cloud: Annotated[
        str | None,
        typer.Option(help="Address of a `sotto serve` that ranks the lattices anew; default: none."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Every event as a line of JSON, lattices among them.")
    ] = False,
) -> None:
    """Write what is said while it is said: words so far, ends of turns. Opens no socket without --cloud."""
    import contextlib

    from pipeline.runtime import listen as listening
    from pipeline.runtime.bundle import load_packed
    from pipeline.runtime.endpoint_score import find_endpointer
    from pipeline.runtime.engine import Engine
    from pipeline.runtime.phrases import PhraseBonus, find_bonus, find_prefixes, read_phrases
    from pipeline.runtime.sources import file_chunks, in_real_time, pcm_chunks

    file = model or default_model()
    packed = load_packed(file)
    bonus = find_bonus(file) if phrase_score is None else PhraseBonus(phrase_score, phrase_score, 0.0)
    known = (packed.tokenizer, bonus, packed.lexicon)
    bias = read_phrases(phrases, *known, find_prefixes(file)) if phrases else None
    engine = Engine(packed, endpointer=find_endpointer(file, endpointer))
    if source == "-":
        chunks = pcm_chunks(sys.stdin.buffer, chunk_ms, rate_hz, channels)
    else:
        chunks = file_chunks(source, chunk_ms)
    live = listening.show_live if sys.stdout.isatty() else listening.show_lines
    show = (listening.show_json if as_json else live)(sys.stdout)
    with contextlib.ExitStack() as stack:
        downstream = None
        if cloud:
            from pipeline.cloud.downstream import cloud_downstream
            from pipeline.cloud.wire import known_words

            words = known_words([piece for piece, _ in packed.tokenizer.pieces])
            downstream = stack.enter_context(cloud_downstream(cloud, words))
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))  # how listening to a microphone ends
        paced = in_real_time(chunks) if realtime else chunks
        for heard in listening.listen(engine, paced, bias, from_s, downstream):
            show(heard)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A packed recogniser (.sotto).")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Show what a packed recogniser holds: sections, bytes, bits per weight, zeros."""
    from pipeline.evaluation.inspect import describe, render

    description = describe(file)
    print(json.dumps(description, ensure_ascii=False, indent=1) if as_json else render(description))


@app.command()
def serve(
    model: Annotated[
        Path, typer.Option(help="Folder that the stage language_model wrote.")
    ] = RUN_LANGUAGE_MODEL,
    recogniser: Annotated[
        Path | None, typer.Option(help="Packed recogniser whose lattices come; default as for transcribe.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="JSON with language_model, internal, per_word; default: the same run's."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
) -> None:
    """Answer lattices over HTTP: rerank them, name the intent. `pipeline/cloud/wire.py` has the addresses."""
    import uvicorn

    from pipeline.cloud.reranker import DEFAULT_WEIGHTS, Reranker, read_weights
    from pipeline.cloud.service import create_app
    from pipeline.language.storage import load_language
    from pipeline.runtime.bundle import load_packed
    from pipeline.tracking import load_handoff

    hand = load_handoff(model)
    language = load_language(hand.card, hand.tensors)
    beside = model.parent / "stream/weights.json"
    file = weights or (beside if beside.is_file() else None)
    chosen = read_weights(file) if file else DEFAULT_WEIGHTS
    reranker = Reranker(language, load_packed(recogniser or default_model()), chosen)
    facts = {"weights": dataclasses.asdict(chosen), "tokenizer_hash": language.tokenizer_hash}
    uvicorn.run(create_app(reranker, facts), host=host, port=port, log_level="warning", access_log=False)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write: encoder, decoder, joiner, tokens.txt.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Packed recogniser, or a stage's folder (data/student); default as for transcribe."
        ),
    ] = None,
    chunk_ms: Annotated[int, typer.Option(help="Audio per step of the encoder, a multiple of 80.")] = 80,
) -> None:
    """Write the recogniser as ONNX for sherpa-onnx's streaming transducer."""
    from pipeline.runtime.bundle import load_packed
    from pipeline.runtime.export import export as write

    source = model or default_model()
    if source.is_dir():
        transducer, tokenizer = _stage_model(source)
    else:
        packed = load_packed(source)
        transducer, tokenizer = packed.model, packed.tokenizer
    for name, size_bytes in write(transducer, tokenizer, folder, chunk_ms).items():
        print(f"{folder / name}\t{size_bytes:,} bytes")
    print(f"feature_dim={transducer.config.num_mel_bins}")


def _stage_model(folder: Path):
    """(transducer, tokenizer) of a stage's folder; the tokenizer lies in `prepare` beside it."""
    from pipeline.corpus.tokenizer import Tokenizer
    from pipeline.models.transducer import build_transducer
    from pipeline.tracking.handoff import load_handoff

    hand = load_handoff(folder)
    if "model" not in hand.card:
        raise UserError(
            f"{folder / 'card.json'}: has no key model; give the folder of a stage that trains one"
        )
    transducer, tensors = build_transducer(hand.card["model"]), hand.tensors
    try:
        transducer.load_state_dict({name: tensors[name] for name in transducer.state_dict()})
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / 'model.safetensors'}: does not fit card.json ({reason})") from error
    return transducer.eval(), Tokenizer.from_model(folder.parent / "prepare/tokenizer.model")


def default_model() -> Path:
    """The packed file of the last run in this tree, else the released one."""
    for path in (RUN_MODEL, ROOT / RUN_MODEL, RELEASED_MODEL):
        if path.is_file():
            return path
    raise UserError(
        f"no packed recogniser at {ROOT / RUN_MODEL} or {RELEASED_MODEL}; run `make repro` or give --model"
    )


def _as_record(file: Path, transcript) -> dict:
    return {
        "file": str(file),
        "text": transcript.text,
        "tokens": [{"piece": token.piece, "time_s": token.time_s} for token in transcript.tokens],
        "confidence": round(transcript.confidence, 4),
        "duration_s": round(transcript.duration_s, 3),
        "rtf": round(transcript.rtf, 4),
    }


def main() -> None:
    """Entry point of the `sotto` command."""
    try:
        app()
    except UserError as error:
        print(f"sotto: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
