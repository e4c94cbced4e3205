"""What each model hears in a test set: {utterance id: text}.

Steps before packing are decoded from the stored features; the packed file from the audio on, as on a device.
"""

from collections.abc import Sequence

import torch
from lhotse.cut import MonoCut
from tqdm import tqdm

from pipeline.corpus.datamodule import start_frame
from pipeline.corpus.shards import load_feature_matrix
from pipeline.corpus.tokenizer import Tokenizer
from pipeline.decoding.lexicon import Lexicon
from pipeline.features.fbank import fbank
from pipeline.runtime.bundle import Packed
from pipeline.runtime.recognise import decode_many

FRAMES_PER_SECOND = 100


def hear_features(
    model,
    tokenizer: Tokenizer,
    lexicon: Lexicon | None,
    cuts: Sequence[MonoCut],
    batch_seconds: float,
    name: str,
) -> dict[str, str]:
    """Texts of a transducer (beam search with a lexicon), batches of up to `batch_seconds` of padded audio."""
    features = [load_feature_matrix(cut) for cut in cuts]
    return _hear(model, tokenizer, lexicon, cuts, features, batch_seconds, name)


def hear_recordings(
    packed: Packed, cuts: Sequence[MonoCut], batch_seconds: float, name: str
) -> dict[str, str]:
    """Texts of a loaded packed file, by its own features, tokenizer and lexicon, from the cuts' audio."""
    features = [
        fbank(torch.from_numpy(cut.load_audio()), packed.fbank_config)[0]
        for cut in tqdm(cuts, desc=f"{name}: features", unit="utt", mininterval=1.0)
    ]
    return _hear(packed.model, packed.tokenizer, packed.lexicon, cuts, features, batch_seconds, name)


def _hear(
    model,
    tokenizer: Tokenizer,
    lexicon: Lexicon | None,
    cuts: Sequence[MonoCut],
    features: Sequence,
    batch_seconds: float,
    name: str,
) -> dict[str, str]:
    """The texts of the cuts' features, each searched from the end of its wake word on."""
    starts = [start_frame(cut) for cut in cuts]
    results = decode_many(model, features, starts, int(batch_seconds * FRAMES_PER_SECOND), name, lexicon)
    return {cut.id: tokenizer.decode(result.tokens) for cut, result in zip(cuts, results, strict=True)}
