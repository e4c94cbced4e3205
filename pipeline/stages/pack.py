"""Pack the compressed model with everything the recogniser needs into one file.

Run:    dvc repro pack                                        Toy: make smoke
Reads:  data/prepare, data/lexicon, data/<pack.after>         Writes: data/pack/model.sotto
Cost:   2 s; the weights take their entropy + 0.1 %, then come the words, all else is about 3 kB
"""

from pipeline.compression.entropy_coding import general_coders
from pipeline.compression.packed_format import unpack
from pipeline.compression.zeros_and_bits import as_csv, layer_table, totals
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.errors import UserError
from pipeline.evaluation.inspect import describe
from pipeline.models.transducer import without_training_heads
from pipeline.params import load_params
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.bundle_model import write_packed
from pipeline.runtime.word_section import read_lexicon
from pipeline.tracking import load_handoff, run_stage, start_run


def main() -> None:
    params = load_params("pack")
    before = load_handoff(f"data/{params.after}")
    tokenizer = Tokenizer.from_model("data/prepare/tokenizer.model")
    if before.card["tokenizer_hash"] != tokenizer.hash:
        raise UserError(
            f"data/{params.after}: was trained with another tokenizer; run `dvc repro {params.after}`"
        )
    with start_run("pack", params, parents=["lexicon", params.after]) as run:
        path = run.scratch / "model.sotto"
        lexicon = read_lexicon("data/lexicon/words.bin", tokenizer)
        write_packed(path, before.card["model"], before.tensors, tokenizer, params.features, lexicon=lexicon)
        _ = load_packed(path).model
        tensors = without_training_heads(before.tensors)
        layers = run.scratch / "layers.csv"
        layers.write_text(as_csv(layer_table(tensors)), encoding="utf-8")
        run.log_artifact(layers)
        codes = [item.integers for item in unpack(path.read_bytes(), str(path)).coded.values()]
        found = describe(path)
        metrics = {
            "bytes/packed": found["bytes"],
            "bits_per_weight/packed": found["bits_per_weight"],
            "zeros/packed": found["zeros"],
            "entropy/packed": totals(tensors)["entropy"],
            "params/packed": found["params"],
            "weights_over_entropy/packed": found["weights_over_entropy"],
            **{f"section_bytes/{name}": size for name, size in found["sections"].items()},
            **{f"section_bytes/weights_{coder}": size for coder, size in general_coders(codes).items()},
        }
        run.hand_off(
            "data/pack", card={"model": before.card["model"]}, metrics=metrics, files={"model.sotto": path}
        )


if __name__ == "__main__":
    run_stage(main)
