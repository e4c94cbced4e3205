"""Transcripts of the packed recogniser and of sherpa-onnx on its export: equal on how many utterances, and their WER.

Run:    python bench/parity.py [UTTERANCES]      Cost: two minutes for a test set of 1.4 h on a quiet core
Reads data/prepare/test and the run's packed file. sherpa-onnx knows no start frame, so that all search from the first
sample on, once on whole recordings and once on recordings cut where the wake word ends. All get the same samples, with
silence behind them (evaluation/sherpa.with_end). Writes bench/parity.json: `same/<engine>/<audio>`,
`wer/<engine>/<audio>` (percent; all search greedily; `reference` is runtime/recognise.py, `engine`
runtime/fast_recogniser.py).
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.cli import default_model
from pipeline.corpus.shards import load_cuts
from pipeline.decoding.greedy import greedy
from pipeline.evaluation import sherpa
from pipeline.evaluation.wer import count_errors
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.export import export
from pipeline.runtime.fast_recogniser import FastRecogniser
from pipeline.runtime.fast_weights import load_fast
from pipeline.runtime.recognise import transcribe

ROOT = Path(__file__).resolve().parents[1]
TEST = ROOT / "data/prepare/test"
CHUNK_MS = 80
Hear = Callable[[np.ndarray], str]


def main() -> None:
    torch.set_num_threads(1)
    if not TEST.is_dir():
        print(f"no {TEST.relative_to(ROOT)}: skipped; `make repro` makes it")
        return
    cuts = list(load_cuts(TEST, with_audio=True))[: int(sys.argv[1]) if len(sys.argv) > 1 else None]
    metrics = {}
    with tempfile.TemporaryDirectory() as folder:
        engines = open_engines(default_model(), Path(folder))
        for audio in ("whole", "cut"):
            recordings = [sherpa.with_end(samples_of(cut, audio), CHUNK_MS) for cut in cuts]
            texts = {name: [hear(samples_S) for samples_S in recordings] for name, hear in engines.items()}
            for name, heard in texts.items():
                same = float(np.mean([a == b for a, b in zip(heard, texts["reference"], strict=True)]))
                wer = word_error_rate([cut.supervisions[0].text for cut in cuts], heard)
                metrics |= {f"same/{name}/{audio}": same, f"wer/{name}/{audio}": wer}
                print(f"{audio:6} {name:12} same as reference {100 * same:6.2f} %   WER {wer:6.2f} %")
    content = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    (ROOT / "bench/parity.json").write_text(content, encoding="utf-8")


def open_engines(path: Path, folder: Path) -> dict[str, Hear]:
    packed, fast = load_packed(path), FastRecogniser(load_fast(path))
    export(packed.model, packed.tokenizer, folder / "fp32", CHUNK_MS)
    sherpa.quantise(folder / "fp32", folder / "int8")
    peers = {name: sherpa.open_recogniser(folder / name, packed.num_mel_bins) for name in ("fp32", "int8")}
    return {
        "reference": lambda samples_S: transcribe(packed, samples_S, search=greedy).text,
        "engine": lambda samples_S: fast.text(fast.finish(fast.accept(samples_S, fast.stream()))),
        "sherpa_fp32": lambda samples_S: sherpa.hear(peers["fp32"], samples_S),
        "sherpa_int8": lambda samples_S: sherpa.hear(peers["int8"], samples_S),
    }


def samples_of(cut, audio: str) -> np.ndarray:
    samples_S = cut.load_audio()[0]
    end_s = (cut.supervisions[0].custom or {}).get("wake_word_end_s") or 0.0
    return samples_S[int(end_s * sherpa.SAMPLE_RATE_HZ) :] if audio == "cut" else samples_S


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    counts = [count_errors(*pair) for pair in zip(references, hypotheses, strict=True)]
    return 100 * sum(c["S"] + c["D"] + c["I"] for c in counts) / sum(c["words"] for c in counts)


if __name__ == "__main__":
    main()
