"""Sparsity and quantisation: from a model's parameters to the weights that it should compute with.

The model keeps its dense float32 parameters and is called through
`torch.func.functional_call(model, compressor.weights(model), …)`; nothing is patched into its modules
(pytorch #65688: a parametrised `nn.LSTM` may silently go on using its old weights). The compressor walks
parameters by dimension and knows no model: matrices are masked, then quantised by row; vectors are
quantised with one step each.

    prepare:  compressor = Compressor(model, CompressorConfig(levels=15, sparsity=None))
    train:    compressor.set_progress(step / steps)
              functional_call(model, compressor.weights(model), inputs)
    convert:  tensors = compressor.convert(model)  # matrix == its `<name>.scale` x integers, exactly
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.compression import quantizers, sparsifier
from pipeline.errors import UserError


@dataclass(frozen=True)
class CompressorConfig:
    """`levels` None: weights stay float. `sparsity` None: zeros of the input stay zero; 0.0: no mask."""

    quantizer: str = "lsq"  # lsq | min_max | mse | absolute_cosine
    levels: int | None = 15
    vector_levels: int = 255  # biases and norms, once the matrices are quantised
    sparsity: float | None = None
    mask: str = "magnitude"  # magnitude | random
    schedule: str = "cubic"  # cubic | one_shot
    ramp_end: float = 0.6  # fraction of the training after which masks are frozen
    mask_updates: int = 100  # how often masks are drawn anew during the ramp
    group_rows: int = 1  # rows that share one quota of zeros
    exclude: tuple[str, ...] = ()  # prefixes of parameters that are not compressed (training-only heads)

    def __post_init__(self):
        for key, offered in (
            ("quantizer", quantizers.FIRST_STEPS),
            ("mask", sparsifier.MASKS),
            ("schedule", sparsifier.SCHEDULES),
        ):
            if getattr(self, key) not in offered:
                raise UserError(
                    f"{key}: {getattr(self, key)!r} is not known; choose one of {sorted(offered)}"
                )
        if self.sparsity is not None and not 0.0 <= self.sparsity < 1.0:
            raise UserError(f"sparsity: {self.sparsity} must be a share of zeros, at least 0 and below 1")
        if not 0.0 < self.ramp_end <= 1.0 or self.mask_updates < 1 or self.group_rows < 1:
            raise UserError("ramp_end must lie in (0, 1]; mask_updates and group_rows must be at least 1")
        for levels in (self.levels, self.vector_levels):
            if levels is not None:
                quantizers.max_level(levels)


class Compressor(nn.Module):
    """Masks (buffers) and log2 steps (parameters) of a model's matrices; `state_dict` is all of its state."""

    def __init__(
        self,
        model: nn.Module,
        config: CompressorConfig,
        scales: Mapping[str, Tensor] | None = None,
        shares: Mapping[str, float] | None = None,
    ):
        """`scales`: {matrix name: (R,)}, the steps to begin with; of a model quantised before, also its levels.

        `shares`: {matrix name: final share of zeros}, where it is not the config's sparsity.
        """
        super().__init__()
        self.config = config
        named = {n: p for n, p in model.named_parameters() if not n.startswith(config.exclude or ("\0",))}
        self.matrices = [name for name, p in named.items() if p.ndim == 2]
        self.vectors = [name for name, p in named.items() if p.ndim == 1]
        self.levels = config.levels
        if scales and self.levels is None:
            self.levels = _levels_of(named, scales)
        self.shares = dict.fromkeys(self.matrices, config.sparsity or 0.0) | dict(shares or {})
        self.masks = nn.Module()
        self.log2_steps = nn.ParameterList()
        for position, name in enumerate(self.matrices):
            weight_RC = named[name].detach()
            # Without a sparsity of its own it keeps the zeros that it is given.
            keep_RC = (weight_RC != 0) | (config.sparsity is not None)
            self.masks.register_buffer(str(position), keep_RC.to(weight_RC.dtype))
            if self.levels is not None:
                step_R = (scales or {}).get(name)
                if step_R is None:
                    first_step = quantizers.FIRST_STEPS[config.quantizer]
                    step_R = first_step(weight_RC, quantizers.max_level(self.levels))
                log2_R = quantizers.nearest_index(step_R.to(weight_RC)) / quantizers.STEPS_PER_OCTAVE
                self.log2_steps.append(nn.Parameter(log2_R, requires_grad=config.quantizer == "lsq"))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("masks_drawn", torch.full((), -1, dtype=torch.int64))

    def set_progress(self, fraction: float) -> None:
        """Fraction of the training that is done, 0…1; masks follow at the next call of `weights`."""
        self.progress.fill_(min(1.0, max(0.0, fraction)))

    def target_sparsity(self, name: str) -> float:
        """Share of zeros that the schedule asks of every row of a matrix now."""
        schedule = sparsifier.SCHEDULES[self.config.schedule]
        return schedule(self._draw() / self.config.mask_updates, self.shares[name])

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """{name: effective weights} of every matrix and, once quantised, every vector; differentiable."""
        named = dict(model.named_parameters())
        self._draw_masks(named)
        effective = {name: self._masked(position, named[name]) for position, name in enumerate(self.matrices)}
        if self.levels is None or (self.training and self.config.quantizer == "absolute_cosine"):
            return effective
        top = quantizers.max_level(self.levels)
        for position, name in enumerate(self.matrices):
            log2_step_R = self._log2_step(position, effective[name])
            effective[name] = quantizers.fake_quantize(effective[name], log2_step_R, top)
        for name in self.vectors:
            row_1N = named[name][None]
            step_1 = quantizers.min_max_step(row_1N.detach(), quantizers.max_level(self.config.vector_levels))
            top_vector = quantizers.max_level(self.config.vector_levels)
            effective[name] = quantizers.fake_quantize(row_1N, step_1.log2(), top_vector)[0]
        return effective

    def weights_and_steps(self, model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """{matrix: (masked weights (R, C), unrounded steps (R,))}: what regularisers (rate, ACosR) see."""
        named = dict(model.named_parameters())
        pairs = {}
        for position, name in enumerate(self.matrices if self.levels is not None else ()):
            weight_RC = self._masked(position, named[name])
            pairs[name] = weight_RC, self._log2_step(position, weight_RC).exp2()
        return pairs

    @torch.no_grad()
    def convert(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's final tensors on the CPU: `weights` in evaluation mode, other parameters, buffers.

        A quantised tensor has its `<name>.scale` beside it, (R,) for a matrix and (1,) for a vector, and
        equals scale x integer exactly; what has no scale then is rounded to float16. Without levels: masked
        float32.
        """
        was_training = self.training
        self.eval()
        effective = self.weights(model)
        self.train(was_training)
        tensors = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        tensors |= {name: value.detach().cpu() + 0.0 for name, value in effective.items()}
        if self.levels is None:
            return tensors
        named = dict(model.named_parameters())
        for position, name in enumerate(self.matrices):
            log2_step_R = self._log2_step(position, self._masked(position, named[name]))
            index_R = (log2_step_R * quantizers.STEPS_PER_OCTAVE).round().long()
            tensors[f"{name}.scale"] = quantizers.step_of_index(index_R).cpu()
        for name in self.vectors:
            top_vector = quantizers.max_level(self.config.vector_levels)
            tensors[f"{name}.scale"] = quantizers.min_max_step(named[name].detach()[None], top_vector).cpu()
        for name, value in tensors.items():
            if value.is_floating_point() and name not in effective and not name.endswith(".scale"):
                tensors[name] = value.half().float()
        return tensors

    def _draw(self) -> int:
        ramp = float(self.progress) / self.config.ramp_end
        return min(self.config.mask_updates, int(ramp * self.config.mask_updates + 1e-9))

    def _draw_masks(self, named: Mapping[str, Tensor]) -> None:
        if not self.config.sparsity or self._draw() == int(self.masks_drawn):
            return
        draw_mask = sparsifier.MASKS[self.config.mask]
        for position, name in enumerate(self.matrices):
            mask_RC = draw_mask(named[name], self.target_sparsity(name), self.config.group_rows)
            self.masks.get_buffer(str(position)).copy_(mask_RC)
        self.masks_drawn.fill_(self._draw())

    def _masked(self, position: int, weight_RC: Tensor) -> Tensor:
        if self.config.sparsity == 0.0:
            return weight_RC
        return weight_RC * self.masks.get_buffer(str(position))

    def _log2_step(self, position: int, weight_RC: Tensor) -> Tensor:
        if self.config.quantizer == "min_max":
            step_R = quantizers.min_max_step(weight_RC.detach(), quantizers.max_level(self.levels))
            return step_R.log2()
        return self.log2_steps[position]


def _levels_of(named: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> int:
    """The smallest level count that holds every integer of an already quantised model."""
    top = max(
        int((named[name].detach() / step_R[:, None].to(named[name])).abs().max().round())
        for name, step_R in scales.items()
        if name in named and named[name].ndim == 2
    )
    return 2 * max(1, top) + 1
