"""Fit what the search knows of words: those of the training transcripts, and which classes of them follow each other.

Run:    dvc repro lexicon                 Toy: make smoke
Reads:  data/prepare (text, tokenizer)    Writes: data/lexicon/words.bin, which travels in the packed file
Cost:   5 s for 12 h of transcripts; a word takes some 7 bytes, its share of the grammar included
"""

from pipeline.corpus.tokenizer import Tokenizer
from pipeline.corpus.transcripts import known_words, transcripts
from pipeline.language.class_ngram import ClassNgram
from pipeline.params import load_params
from pipeline.runtime.word_section import pack_words, read_lexicon
from pipeline.tracking import run_stage, start_run


def main() -> None:
    params = load_params("lexicon")
    with start_run("lexicon", params, parents=["prepare"]) as run:
        tokenizer = Tokenizer.from_model("data/prepare/tokenizer.model")
        said, dev = (
            [each.text.split() for each in transcripts(f"data/prepare/{split}")] for split in ("train", "dev")
        )
        words = known_words("data/prepare/train", params.max_words)
        spelled = [
            word
            for word, tokens in zip(words, tokenizer.encode_all(words), strict=True)
            if tokenizer.unknown_id not in tokens
        ]
        ngram = ClassNgram.fit(said, spelled, params.num_classes, params.min_history)
        known, heard = set(spelled), [word for each in dev for word in each]
        path = run.scratch / "words.bin"
        path.write_bytes(pack_words(ngram, params.weights))
        read_lexicon(path, tokenizer)
        metrics = {
            "perplexity/lexicon/dev": ngram.perplexity(dev),
            "unknown_words/lexicon/dev": sum(word not in known for word in heard) / max(1, len(heard)),
            "words/lexicon": len(spelled),
            "histories/lexicon": len(ngram.newest_H),
            "bytes/lexicon": path.stat().st_size,
        }
        run.hand_off(
            "data/lexicon",
            card={"tokenizer_hash": tokenizer.hash},
            metrics=metrics,
            files={"words.bin": path},
        )


if __name__ == "__main__":
    run_stage(main)
