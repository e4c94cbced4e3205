"""Real-time factor and peak memory of streaming recognition: ours against sherpa-onnx, on one core.

Run:    python bench/engines.py [ROUNDS]      Cost: two minutes on a quiet core, after the engine was compiled once
Prints, for chunks of 80, 160 and 320 ms, processor seconds per second of audio (median of interleaved rounds) and the
highest resident memory of a process that does nothing else, each also as a ratio to sherpa-onnx fp32, and how many
utterances have the same text as ours. Writes bench/engines.json: `rtf/<engine>` and `megabytes/<engine>` (80 ms),
`rtf/<engine>/<chunk>_ms`, `same/<engine>` (as `greedy`; `engine` and `sherpa_int8_beam` search wider).

What the engines are and how they are timed: pipeline/evaluation/speed.py; here all are pinned to one core. The model
is the run's packed file (else the released one), the audio the first test utterances (else speech made here).
sherpa-onnx's encoder is exported for the chunk it is fed.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from pipeline.cli import default_model
from pipeline.evaluation.speed import ENGINES, ask, prepare, start

ROOT = Path(__file__).resolve().parents[1]
ALL = (*ENGINES, "reference")
CHUNKS_MS = (80, 160, 320)
BASE = "sherpa_fp32"
UTTERANCES, ROUNDS = 12, 5


def main() -> None:
    num_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    if hasattr(os, "sched_setaffinity"):  # children inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    model = default_model()
    audio, recordings = read_test() if (ROOT / "data/prepare/test").is_dir() else speak()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        seconds = prepare(folder, model, None, recordings, CHUNKS_MS)
        print(f"{model.name}; {len(recordings)} utterances ({audio}), {seconds:.0f} s")
        keys = [(engine, ms) for ms in CHUNKS_MS for engine in ALL]
        workers = {key: stack.enter_context(start(folder, *key)) for key in keys}
        texts = {key: ask(worker)["texts"] for key, worker in workers.items()}  # warm up
        rounds = [{key: ask(worker) for key, worker in workers.items()} for _ in range(num_rounds)]
    rtf = {key: statistics.median(each[key]["seconds"] for each in rounds) / seconds for key in keys}
    megabytes = {key: rounds[-1][key]["megabytes"] for key in keys}
    same = {(engine, ms): share_alike(texts[engine, ms], texts["greedy", ms]) for engine, ms in keys}
    print(f"{'chunk':>6}  {'':12} {'rtf':>8} {'ratio':>6} {'MB':>6} {'ratio':>6}  same text")
    for engine, ms in keys:
        key, base = (engine, ms), (BASE, ms)
        print(
            f"{ms:3} ms  {engine:12} {rtf[key]:8.5f} {rtf[key] / rtf[base]:6.2f} {megabytes[key]:6.0f} "
            f"{megabytes[key] / megabytes[base]:6.2f}  {100 * same[key]:5.1f} %"
        )
    metrics = {f"rtf/{engine}/{ms}_ms": value for (engine, ms), value in rtf.items()}
    for engine in ALL:
        for name, found in (("rtf", rtf), ("megabytes", megabytes), ("same", same)):
            metrics[f"{name}/{engine}"] = found[engine, CHUNKS_MS[0]]
    content = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    (ROOT / "bench/engines.json").write_text(content, encoding="utf-8")


def share_alike(texts: list[str], others: list[str]) -> float:
    return sum(map(str.__eq__, texts, others)) / len(texts)


def read_test():
    from pipeline.corpus.shards import load_cuts

    cuts = load_cuts(ROOT / "data/prepare/test", with_audio=True)
    return "test set", [cut.load_audio()[0] for cut, _ in zip(cuts, range(UTTERANCES), strict=False)]


def speak():
    from pipeline.corpus.synthetic import SyntheticConfig, plan, render

    plans = plan(SyntheticConfig(), "test", UTTERANCES * 4 / 3600, seed=0)
    return "made here", [render(one)[0] for one in plans[:UTTERANCES]]


if __name__ == "__main__":
    main()
