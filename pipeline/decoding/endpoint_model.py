"""The end-of-utterance score: what the encoder hears and how long the decoder has been silent, through a tiny GRU.

    logit_BT, hidden_BTH = model(encoded_BTD, pause_BTD)                         # whole, the end of each frame
    logit_BT, hidden_BTH, state = model.step(encoded_BTD, pause_BTD, state)      # a stream, the same numbers
    half_logit_BT = model.half(hidden_BTH, change_BTF)                           # the middle of the frame after each

What it is given: `decoding/endpoint_input.py`. Of the first half of a frame, which the encoder has not heard, it is
told how the sound has changed: the mean log-mel energies of these 40 ms less those of the 80 ms before, so that a
microphone's level cancels.

Source: Chang et al. 2019, "Joint endpointing and decoding with end-to-end models" (ICASSP: the recogniser's encoder
serves the end-pointer too).
"""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.decoding.endpoint_input import PAUSE_FEATURES, EndpointModelConfig


class EndpointModel(nn.Module):
    """(encoded_BTD, pause_BTD) -> logit_BT, the log-odds that the speaker had finished by the end of frame t, and the
    GRU's outputs, from which `half` goes 40 ms further.

    Causal. Padding behind an utterance changes nothing before it. The encoder's output is projected first, because
    the recurrence would otherwise be most of the weights. Matrices are 2-D parameters and reach the kernel as
    arguments, so that masked or quantised ones are those in use.
    """

    def __init__(self, config: EndpointModelConfig):
        super().__init__()
        self.config = config
        width, input_width = config.width, config.projected_width + len(PAUSE_FEATURES)
        self.projection = nn.Linear(config.encoder_width, config.projected_width)
        self.weight_ih = nn.Parameter(torch.empty(3 * width, input_width))
        self.weight_hh = nn.Parameter(torch.empty(3 * width, width))
        self.bias_ih = nn.Parameter(torch.zeros(3 * width))
        self.bias_hh = nn.Parameter(torch.zeros(3 * width))
        self.output = nn.Linear(width, 1)
        self.change = nn.Linear(config.num_mel_bins, config.change_width)
        self.half_hidden = nn.Linear(width + config.change_width, width)
        self.half_output = nn.Linear(width, 1)
        nn.init.xavier_uniform_(self.weight_ih)
        for gate_DD in self.weight_hh.data.split(width):
            nn.init.orthogonal_(gate_DD)

    def arrays(self) -> dict[str, np.ndarray]:
        """A copy of the weights, by name."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def forward(self, encoded_BTD: Tensor, pause_BTD: Tensor) -> tuple[Tensor, Tensor]:
        logit_BT, hidden_BTH, _ = self.step(encoded_BTD, pause_BTD, self.initial_state(len(encoded_BTD)))
        return logit_BT, hidden_BTH

    def initial_state(self, batch: int) -> Tensor:
        """hidden_BH before the first frame."""
        return self.weight_hh.new_zeros(batch, self.config.width)

    def step(
        self, encoded_BTD: Tensor, pause_BTD: Tensor, hidden_BH: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Any number of frames, also none -> (logit_BT, hidden_BTH, hidden_BH). The state is not changed in place."""
        if encoded_BTD.shape[1] == 0:  # torch's GRU refuses an empty sequence
            return encoded_BTD.new_zeros(encoded_BTD.shape[:2]), hidden_BH[:, None][:, :0], hidden_BH
        x_BTD = torch.cat([self.projection(encoded_BTD).tanh(), compress_counts(pause_BTD)], -1)
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        hidden_BTH, last_1BH = torch._VF.gru(
            x_BTD, hidden_BH[None].contiguous(), weights, True, 1, 0.0, self.training, False, True
        )
        return self.output(hidden_BTH)[..., 0], hidden_BTH, last_1BH[0]

    def half(self, hidden_BTH: Tensor, change_BTF: Tensor) -> Tensor:
        """Log-odds that the speaker had finished 40 ms after the end of frame t; no later score depends on it."""
        both = torch.cat([hidden_BTH, self.change(change_BTF).tanh()], -1)
        return self.half_output(self.half_hidden(both).tanh())[..., 0]


def compress_counts(pause_BTD: Tensor) -> Tensor:
    """The two counts as logarithms: the tenth silent frame says less than the second."""
    frames_BT, blank_BT, has_words_BT, num_words_BT = pause_BTD.unbind(-1)
    return torch.stack([frames_BT.log1p(), blank_BT, has_words_BT, num_words_BT.log1p()], -1)
