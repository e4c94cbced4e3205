"""Real-time factor and peak memory of streaming recognition: ours against sherpa-onnx, on one core.

Run:    python bench/engines.py [REPETITIONS]      Cost: a minute on a quiet core, after the engine was compiled once
Prints, for chunks of 80, 160 and 320 ms, processor seconds per second of audio (median of interleaved repetitions)
and the highest resident memory of a process that does nothing else, each also as a ratio to sherpa-onnx fp32, and how
many utterances have the same text as ours. Writes bench/engines.json: `rtf/<engine>` and `megabytes/<engine>` (80 ms),
`rtf/<engine>/<chunk>_ms`, `same/<engine>`.

One process for each engine and chunk, all pinned to one core, of which one works at a time; processor time, not the
clock, so that other jobs on the machine disturb little. The model is the run's packed file (else the released one),
the audio the first test utterances (else speech made here). sherpa-onnx's encoder is exported for the chunk it is fed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ENGINES = ("engine", "reference", "sherpa_fp32", "sherpa_int8")
CHUNKS_MS = (80, 160, 320)
BASE = "sherpa_fp32"
UTTERANCES, REPETITIONS = 12, 5
ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    if hasattr(os, "sched_setaffinity"):  # children inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        prepared = start("prepare", folder)
        facts = json.loads(prepared.stdout.readline())
        if prepared.wait():
            sys.exit("bench/engines.py: model and audio could not be prepared")
        print(
            f"{facts['model']}; {facts['utterances']} utterances ({facts['audio']}), {facts['seconds']:.0f} s"
        )
        workers = {(e, ms): start("work", folder, e, str(ms)) for ms in CHUNKS_MS for e in ENGINES}
        texts = {key: ask(worker)["texts"] for key, worker in workers.items()}  # warm up
        seconds = defaultdict(list)
        for _ in range(repetitions):
            for key, worker in workers.items():
                seconds[key].append(ask(worker)["seconds"])
        megabytes = {key: ask(worker, last=True)["megabytes"] for key, worker in workers.items()}
    rtf = {key: statistics.median(values) / facts["seconds"] for key, values in seconds.items()}
    same = {(e, ms): share_alike(texts[e, ms], texts["engine", ms]) for e, ms in workers}
    print(f"{'chunk':>6}  {'':12} {'rtf':>8} {'ratio':>6} {'MB':>6} {'ratio':>6}  same text")
    for engine, ms in workers:
        key, base = (engine, ms), (BASE, ms)
        print(
            f"{ms:3} ms  {engine:12} {rtf[key]:8.5f} {rtf[key] / rtf[base]:6.2f} {megabytes[key]:6.0f} "
            f"{megabytes[key] / megabytes[base]:6.2f}  {100 * same[key]:5.1f} %"
        )
    metrics = {f"rtf/{e}/{ms}_ms": value for (e, ms), value in rtf.items()}
    for engine in ENGINES:
        key = (engine, CHUNKS_MS[0])
        metrics |= {
            f"rtf/{engine}": rtf[key],
            f"megabytes/{engine}": megabytes[key],
            f"same/{engine}": same[key],
        }
    content = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    (ROOT / "bench/engines.json").write_text(content, encoding="utf-8")


def share_alike(texts: list[str], others: list[str]) -> float:
    return sum(map(str.__eq__, texts, others)) / len(texts)


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, __file__, *arguments]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def ask(worker: subprocess.Popen, last: bool = False) -> dict:
    """Have a worker decode everything once; with `last` it ends and tells its memory instead."""
    if last:
        worker.stdin.close()
    else:
        print("again", file=worker.stdin, flush=True)
    line = worker.stdout.readline()
    if not line:
        sys.exit(f"bench/engines.py: {' '.join(worker.args[2:])} ended with exit code {worker.wait()}")
    return json.loads(line)


def prepare(folder: Path) -> None:
    """Everything that needs torch: the exports for each chunk, in fp32 and int8, and the samples."""
    import logging

    import torch

    from pipeline.cli import default_model
    from pipeline.evaluation.sherpa import quantise, with_end
    from pipeline.runtime.bundle import load_packed
    from pipeline.runtime.export import export

    logging.disable(logging.WARNING)  # of the quantiser: it asks for preparations that change nothing here
    torch.set_num_threads(1)
    path = default_model()
    packed = load_packed(path)
    for ms in CHUNKS_MS:
        export(packed.model, packed.tokenizer, folder / f"sherpa_fp32_{ms}", ms)
        quantise(folder / f"sherpa_fp32_{ms}", folder / f"sherpa_int8_{ms}")
    audio, recordings = read_test() if (ROOT / "data/prepare/test").is_dir() else speak()
    recordings = [
        with_end(samples_S, max(CHUNKS_MS)) for samples_S in recordings
    ]  # whole chunks of every length
    for index, samples_S in enumerate(recordings):
        samples_S.tofile(folder / f"{index:03}.f32")
    seconds = sum(map(len, recordings)) / 16_000
    facts = {"model": path.name, "audio": audio, "utterances": len(recordings), "seconds": seconds}
    (folder / "model.json").write_text(json.dumps([str(path), packed.fbank_config.num_mel_bins]))
    print(json.dumps(facts), flush=True)


def read_test():
    from pipeline.corpus.shards import load_cuts

    cuts = load_cuts(ROOT / "data/prepare/test", with_audio=True)
    return "test set", [cut.load_audio()[0] for cut, _ in zip(cuts, range(UTTERANCES), strict=False)]


def speak():
    from pipeline.corpus.synthetic import SyntheticConfig, plan, render

    plans = plan(SyntheticConfig(), "test", UTTERANCES * 4 / 3600, seed=0)
    return "made here", [render(one)[0] for one in plans[:UTTERANCES]]


def work(folder: Path, engine: str, chunk_ms: int) -> None:
    """Answer each line on stdin by decoding all utterances; when stdin ends, by the memory that it took."""
    import numpy as np

    path, num_mel_bins = json.loads((folder / "model.json").read_text())
    recordings = [np.fromfile(file, np.float32) for file in sorted(folder.glob("*.f32"))]
    hear = open_engine(engine, folder / f"{engine}_{chunk_ms}", path, num_mel_bins, chunk_ms * 16)
    for _ in sys.stdin:
        start_s = time.process_time()
        texts = [hear(samples_S) for samples_S in recordings]
        print(json.dumps({"seconds": time.process_time() - start_s, "texts": texts}), flush=True)
    print(json.dumps({"megabytes": peak_megabytes()}), flush=True)


def open_engine(engine: str, folder: Path, path: str, num_mel_bins: int, chunk: int):
    """A function samples_S -> text that hears them `chunk` samples at a time."""
    if engine.startswith("sherpa"):
        from pipeline.evaluation import sherpa

        recogniser = sherpa.open_recogniser(folder, num_mel_bins)
        return lambda samples_S: sherpa.hear(recogniser, samples_S, chunk)
    if engine == "reference":
        import torch

        from pipeline.runtime.bundle import load_packed
        from pipeline.runtime.recogniser import Recogniser

        torch.set_num_threads(1)
        ours = Recogniser(load_packed(path))
    else:
        from pipeline.runtime.fast_recogniser import FastRecogniser
        from pipeline.runtime.fast_weights import load_fast

        ours = FastRecogniser(load_fast(path))

    def hear(samples_S):
        state = ours.stream()
        for start in range(0, len(samples_S), chunk):
            state = ours.accept(samples_S[start : start + chunk], state)
        return ours.text(ours.finish(state))

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
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["work"]:
        work(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        main()
