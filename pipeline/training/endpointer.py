"""Train the end-pointer: from the packed recogniser's own encoder frames and pauses, when speech ends in the cuts.

    model, endpointer = endpointer_of(packed, train_cuts, dev_cuts, 2.4, 0.02, 200, 0.04, seed=7, epochs=8)

The recogniser stays as it is. Its pauses come from the best path of whole utterances; the thresholds are chosen on what
the engine hears as it goes (`evaluation/streams.py`). Cost: 2 ms an utterance and epoch.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from lhotse.cut import MonoCut
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from pipeline.corpus.shards import load_feature_matrix
from pipeline.corpus.tokenizer import SPACE
from pipeline.decoding.batch_beam import beam_search
from pipeline.decoding.endpoint_input import EndpointModelConfig, pause_features
from pipeline.decoding.endpoint_model import EndpointModel
from pipeline.decoding.endpointer import TICK_MS, TICKS_PER_FRAME, EndpointConfig
from pipeline.decoding.token_lattice import BLANK_ID, TokenPath
from pipeline.errors import UserError
from pipeline.evaluation.streams import (
    STEP_S,
    background,
    continued,
    speech_end_s,
    tracks,
    wake_end_s,
    with_silence,
)
from pipeline.evaluation.thresholds import choose
from pipeline.features.frames import FEATURES_PER_FRAME, FEATURES_PER_TICK, FRAME_S
from pipeline.models.predictor import CONTEXT_SIZE
from pipeline.models.transducer import Transducer
from pipeline.runtime.bundle import Packed
from pipeline.runtime.endpoint_score import Endpointer, ModelScore
from pipeline.runtime.engine import Engine
from pipeline.runtime.fast_endpoint import weights_of

BATCH = 32
PEAK_LR = 1e-2
CLIP = 1.0


def endpointer_of(
    packed: Packed,
    train: Sequence[MonoCut],
    dev: Sequence[MonoCut],
    silence_s: float,
    max_early_cut: float,
    gap_ms: float,
    max_revision: float,
    seed: int,
    epochs: int,
) -> tuple[EndpointModel, Endpointer]:
    """The model that `train` (with features) teaches, and the end-pointer with thresholds for `dev` (with audio)."""
    examples = endpoint_examples(packed, train, silence_s)
    model = train_endpointer(examples, packed.model.encoder.output_width, seed, epochs)
    return model, with_chosen_thresholds(packed, model, dev, silence_s, max_early_cut, gap_ms, max_revision)


def with_chosen_thresholds(
    packed: Packed,
    model: EndpointModel,
    cuts: Sequence[MonoCut],
    silence_s: float,
    max_early_cut: float,
    gap_ms: float,
    max_revision: float,
) -> Endpointer:
    """The end-pointer whose thresholds the engine's scores of development cuts (with audio) ask for.

    Where none keeps `max_early_cut`, as with a recogniser that hears next to nothing, the defaults stand and stderr
    says so.
    """
    score = ModelScore(weights_of(model.arrays(), model.config))
    engine = Engine(packed, endpointer=Endpointer(score, EndpointConfig()))
    recordings = [with_silence(cut.load_audio()[0], speech_end_s(cut), silence_s) for cut in cuts]
    found, config = tracks(engine, recordings, cuts), engine.endpointer.config
    try:
        config = choose(found, max_early_cut, gap_ms, max_revision, engine.config.settle_ms, config)
    except UserError as error:
        print(f"sotto: end-pointer: default thresholds stand ({error})", file=sys.stderr)
    return Endpointer(engine.endpointer.score, config)


class Example(NamedTuple):
    """One utterance from where it is searched on: encoder frames, pause features, how the sound changes in the 40 ms
    behind each frame; whether speech has ended (0, 1) by the end of a frame, and 40 ms later.
    """

    encoded_TD: Tensor
    pause_TD: Tensor
    change_TF: Tensor
    ended_T2: Tensor


@torch.no_grad()
def endpoint_examples(packed: Packed, cuts: Sequence[MonoCut], silence_s: float) -> list[Example]:
    """Examples of cuts with features (no audio is needed), `silence_s` of their own background behind each."""
    examples = []
    order = sorted(cuts, key=lambda cut: cut.duration)
    for begin in range(0, len(order), BATCH):
        chosen = order[begin : begin + BATCH]
        features = [torch.from_numpy(_continued_features(cut, silence_s)) for cut in chosen]
        lengths_B = torch.tensor([len(features_NF) for features_NF in features])
        start_B = torch.tensor([int(wake_end_s(cut) / FRAME_S) for cut in chosen])
        encoded_BTD, frame_lengths_B = packed.model.encode(
            pad_sequence(features, batch_first=True), lengths_B, start_B
        )
        results = beam_search(packed.model, encoded_BTD, frame_lengths_B, lexicon=packed.lexicon)
        for cut, features_NF, encoded_TD, length, start, result in zip(
            chosen, features, encoded_BTD, frame_lengths_B.tolist(), start_B.tolist(), results, strict=True
        ):
            change_TF = changes_of_sound(features_NF)[start : start + length]
            examples.append(_example(packed, cut, encoded_TD[:length].clone(), change_TF, start, result))
    return examples


def train_endpointer(
    examples: Sequence[Example], encoder_width: int, seed: int, epochs: int
) -> EndpointModel:
    """The model after `epochs` of Adam under a falling rate, cross entropy of every frame."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EndpointModel(EndpointModelConfig(encoder_width, examples[0].change_TF.shape[1])).train()
    drawn = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), PEAK_LR)
    num_steps = epochs * -(-len(examples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=max(2, num_steps + 1))
    for _ in range(epochs):
        order = drawn.permutation(len(examples))
        for begin in range(0, len(order), BATCH):
            loss = endpoint_loss(model, [examples[index] for index in order[begin : begin + BATCH]])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def endpoint_loss(model: EndpointModel, examples: Sequence[Example]) -> Tensor:
    """Mean cross entropy (nats) over the frames of a batch and the middles of the next ones, padding left out."""
    lengths_B = torch.tensor([len(example.ended_T2) for example in examples])
    encoded_BTD, pause_BTD, change_BTF, ended_BT2 = (
        pad_sequence(list(parts), True) for parts in zip(*examples, strict=True)
    )
    inside_BT = torch.arange(ended_BT2.shape[1]) < lengths_B[:, None]
    logit_BT, hidden_BTH = model(encoded_BTD, pause_BTD)
    logit_BT2 = torch.stack([logit_BT, model.half(hidden_BTH, change_BTF)], -1)
    return binary_cross_entropy_with_logits(logit_BT2[inside_BT], ended_BT2[inside_BT])


def changes_of_sound(features_NF: Tensor) -> Tensor:
    """What `EndpointModel.half` hears behind each frame of (N, F), as far as there are 40 ms behind it: (T, F)."""
    frame_TF = features_NF.unfold(0, FEATURES_PER_FRAME, FEATURES_PER_FRAME).mean(-1)
    behind_TF = features_NF[FEATURES_PER_FRAME:].unfold(0, FEATURES_PER_TICK, FEATURES_PER_FRAME).mean(-1)
    return behind_TF - frame_TF[: len(behind_TF)]


def _continued_features(cut: MonoCut, silence_s: float) -> np.ndarray:
    features_NF = np.asarray(load_feature_matrix(cut), dtype=np.float32)
    start, stop = background(np.exp(features_NF).mean(1), int(speech_end_s(cut) / STEP_S))
    return continued(features_NF, start, stop, int(silence_s / STEP_S))


def _example(
    packed: Packed, cut: MonoCut, encoded_TD: Tensor, change_TF: Tensor, start: int, result: TokenPath
) -> Example:
    begins_word = [packed.tokenizer.pieces[token][0].startswith(SPACE) for token in result.tokens]
    blank_T = blank_posteriors(packed.model, encoded_TD, result)
    pause_TD = torch.from_numpy(pause_features(result.frames, begins_word, blank_T))
    ends_ms_T = (start + 1 + torch.arange(len(encoded_TD))) * TICKS_PER_FRAME * TICK_MS
    ended_T2 = (torch.stack([ends_ms_T, ends_ms_T + TICK_MS], 1) >= 1000 * speech_end_s(cut)).float()
    heard = len(change_TF)  # behind the last frame there may be no 40 ms
    return Example(encoded_TD[:heard], pause_TD[:heard], change_TF, ended_T2[:heard])


def blank_posteriors(model: Transducer, encoded_TD: Tensor, result: TokenPath) -> np.ndarray:
    """P(blank) in each frame along the best path: what the search saw before it chose."""
    token_at = dict(zip(result.frames, result.tokens, strict=True))
    context, contexts = (BLANK_ID,) * CONTEXT_SIZE, []
    for t in range(len(encoded_TD)):
        contexts.append(context)
        if t in token_at:
            context = (*context[1:], token_at[t])
    if not contexts:
        return np.zeros(0)
    logits_TV = model.join(encoded_TD, model.predict_context(torch.tensor(contexts)))
    return logits_TV.softmax(-1)[:, BLANK_ID].numpy()
