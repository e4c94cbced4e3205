"""How fast recognition is, ours and sherpa-onnx's side by side: processor seconds for a second of audio.

    metrics = real_time_factors(model_file, endpointer_file, recordings)    # rtf/engine, rtf/greedy, rtf/sherpa_…

`engine`: the whole device, with beam search, lattices and end-pointer. `greedy`: the compiled recogniser without them.
`reference`: the same by torch. `sherpa_fp32`, `sherpa_int8`: sherpa-onnx, greedy, on an export of the same file.
`sherpa_int8_beam`: with as many hypotheses as our engine keeps, the nearest that it has to the engine's work. All hear
the same samples in the same chunks, the shortest of which our encoder takes (80 ms) unless told otherwise.

One process with one thread for each, of which one works at a time, in turns: what else the machine does then disturbs
all alike, and processor time counts little of it. ONNX Runtime switches the flushing of denormals off in the thread
that opens a session, so no session is opened in the process that measures anything else.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.decoding.search import BeamConfig
from pipeline.processes import die_with_parent

SHERPA = {
    "sherpa_fp32": {},
    "sherpa_int8": {},
    "sherpa_int8_beam": {
        "decoding_method": "modified_beam_search", "max_active_paths": BeamConfig().num_states,
    },
}  # fmt: skip
ENGINES = ("engine", "greedy", *SHERPA)
CHUNK_MS, SAMPLES_PER_MS, ROUNDS = 80, 16, 3
ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
Hear = Callable[[np.ndarray], str]


def real_time_factors(
    model: str | Path, endpointer: str | Path | None, recordings: Sequence[np.ndarray]
) -> dict[str, float]:
    """`rtf/…` of ENGINES: medians over rounds. An encoder that is no LSTM has the engine's alone: neither the greedy
    recogniser nor sherpa-onnx knows it.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        seconds_of_audio = prepare(Path(name), model, endpointer, recordings)
        engines = ENGINES if (Path(name) / f"sherpa_fp32_{CHUNK_MS}").exists() else ENGINES[:1]
        workers = {engine: stack.enter_context(start(Path(name), engine)) for engine in engines}
        for worker in workers.values():
            ask(worker)  # warm up
        rounds = [
            {engine: ask(worker)["seconds"] for engine, worker in workers.items()} for _ in range(ROUNDS)
        ]
    medians = {engine: statistics.median(each[engine] for each in rounds) for engine in engines}
    return {f"rtf/{engine}": median / seconds_of_audio for engine, median in medians.items()}


def prepare(
    folder: Path,
    model: str | Path,
    endpointer: str | Path | None,
    recordings: Sequence[np.ndarray],
    chunks_ms: Sequence[int] = (CHUNK_MS,),
) -> float:
    """What workers read: samples that end for all chunks alike, exports of an LSTM -> seconds of audio."""
    from pipeline.evaluation.sherpa import quantise, with_end
    from pipeline.runtime.bundle import load_packed
    from pipeline.runtime.export import export

    packed = load_packed(model)
    if packed.model.config.encoder.name == "lstm":
        for ms in chunks_ms:
            export(packed.model, packed.tokenizer, folder / f"sherpa_fp32_{ms}", ms)
            quantise(folder / f"sherpa_fp32_{ms}", folder / f"sherpa_int8_{ms}")
    recordings = [with_end(samples_S, max(chunks_ms)) for samples_S in recordings]
    for index, samples_S in enumerate(recordings):
        samples_S.astype(np.float32).tofile(folder / f"{index:05}.f32")
    paths = [path and str(Path(path).absolute()) for path in (model, endpointer)]
    (folder / "model.json").write_text(json.dumps([*paths, packed.num_mel_bins]))
    return sum(map(len, recordings)) / (1000 * SAMPLES_PER_MS)


def start(folder: Path, engine: str, chunk_ms: int = CHUNK_MS) -> subprocess.Popen:
    """A worker on a prepared folder; it ends when its standard input does."""
    command = [sys.executable, "-m", "pipeline.evaluation.speed", str(folder), engine, str(chunk_ms)]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def ask(worker: subprocess.Popen) -> dict:
    """Have a worker decode everything once: `seconds` of its processor, `texts`, `megabytes` at most so far."""
    assert worker.stdin and worker.stdout
    with contextlib.suppress(BrokenPipeError):
        print("again", file=worker.stdin, flush=True)
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"the worker {' '.join(worker.args[2:])} ended with exit code {worker.wait()}")
    return json.loads(line)


def work(folder: Path, engine: str, chunk_ms: int) -> None:
    """Answer each line on standard input by decoding all recordings."""
    die_with_parent()
    recordings = [np.fromfile(file, np.float32) for file in sorted(folder.glob("*.f32"))]
    hear = open_engine(folder, engine, chunk_ms)
    for _ in sys.stdin:
        start_s = time.process_time()
        texts = [hear(samples_S) for samples_S in recordings]
        seconds = time.process_time() - start_s
        answer = {"seconds": seconds, "texts": texts, "megabytes": peak_megabytes()}
        print(json.dumps(answer), flush=True)


def open_engine(folder: Path, engine: str, chunk_ms: int) -> Hear:
    """A function samples_S -> text that hears them chunk by chunk."""
    model, endpointer, num_mel_bins = json.loads((folder / "model.json").read_text())
    chunk = chunk_ms * SAMPLES_PER_MS
    if engine in SHERPA:
        from pipeline.evaluation import sherpa

        exported = folder / f"{engine.removesuffix('_beam')}_{chunk_ms}"
        recogniser = sherpa.open_recogniser(exported, num_mel_bins, **SHERPA[engine])
        return lambda samples_S: sherpa.hear(recogniser, samples_S, chunk)
    if engine == "engine":
        return whole_engine(model, endpointer, chunk)
    if engine == "reference":
        from pipeline.runtime.bundle import load_packed
        from pipeline.runtime.recogniser import Recogniser

        return recognition(Recogniser(load_packed(model)), chunk)
    from pipeline.runtime.fast_recogniser import FastRecogniser
    from pipeline.runtime.fast_weights import load_fast

    return recognition(FastRecogniser(load_fast(model)), chunk)


def whole_engine(model: str, endpointer: str | None, chunk: int) -> Hear:
    from pipeline.evaluation.streams import words_of
    from pipeline.runtime.bundle import load_packed
    from pipeline.runtime.endpoint_score import find_endpointer
    from pipeline.runtime.engine import Engine

    engine = Engine(load_packed(model), endpointer=find_endpointer(model, endpointer))

    def hear(samples_S: np.ndarray) -> str:
        state, events = engine.stream(), []
        for begin in range(0, len(samples_S), chunk):
            state, new = engine.accept(samples_S[begin : begin + chunk], state)
            events += new
        return words_of(events + engine.finish(state)[1])

    return hear


def recognition(recogniser, chunk: int) -> Hear:  # type: ignore[no-untyped-def]
    """Of a `Recogniser` or a `FastRecogniser`."""

    def hear(samples_S: np.ndarray) -> str:
        state = recogniser.stream()
        for begin in range(0, len(samples_S), chunk):
            state = recogniser.accept(samples_S[begin : begin + chunk], state)
        return recogniser.text(recogniser.finish(state))

    return hear


def peak_megabytes() -> float:
    """Linux: the high-water mark of this process alone; what getrusage says may be its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
