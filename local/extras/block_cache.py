"""First-block cache: skips the other transformer blocks in steps whose first block gives nearly the same residual.

The method is ParaAttention's (https://github.com/chengzeyi/ParaAttention), in diffusers as FirstBlockCache. diffusers
caches the residuals of ControlNets together with those of the blocks and adds them twice, and supports FLUX's
text-to-image pipeline without ControlNets only. This module caches the residuals of the blocks alone, so that the
ControlNets of each step act, in all pipelines. Without ControlNets both give the same image for a batch of one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from ...core.problems import Problem, ProblemKind
from ..model.local_model import LocalModel

if TYPE_CHECKING:
    from torch import Tensor

    Streams = tuple[Tensor, Tensor]  # text and image tokens [batch, tokens, channels], as a block returns them

# A larger relative difference means that the residuals have nothing in common.
MAX_THRESHOLD = 1.0

NO_BLOCK_CACHE = ProblemKind(
    "no_block_cache", "{target} cannot use the block cache; only FLUX.1 can. Set block_cache to {suggestion}."
)
THRESHOLD_OUT_OF_RANGE = ProblemKind(
    "block_cache_out_of_range", "block_cache is {value}. It must be from 0 to {maximum}. Set it to {suggestion}."
)


def caching_problems(model: LocalModel, threshold: float) -> Iterator[Problem]:
    """What prevents skipping blocks at this threshold; 0 is always possible."""
    if threshold and not model.facts.flow:
        yield NO_BLOCK_CACHE("block_cache", threshold, 0.0, target=model.name)
    elif not 0 <= threshold <= MAX_THRESHOLD:
        nearest = min(max(threshold, 0.0), MAX_THRESHOLD)
        yield THRESHOLD_OUT_OF_RANGE("block_cache", threshold, nearest, maximum=MAX_THRESHOLD)


@dataclass
class BlockCache:
    """The residuals of a transformer's blocks in the last full step, during one call of a pipeline.

    Blocks are skipped in a step if the change that the first block makes differs from that of the last full step by at
    most `threshold`, as a share. `steps` counts all steps, `skipped_steps` those that ran the first block only. There
    must be one call of the transformer per step: FLUX needs no second one for guidance.
    """

    threshold: float
    steps: int = 0
    skipped_steps: int = 0
    _image_before: Tensor | None = None
    """The image tokens before the first block of this step."""
    _first_residual: Tensor | None = None
    """The change of the image tokens from there to the second block, in the last full step."""
    _rest_residual: tuple[Tensor | float, Tensor | float] = (0.0, 0.0)
    """What all other blocks added to the text and image tokens in the last full step, in fp32."""
    _skipping: bool = False

    def forwards(self) -> Iterator[Callable[..., Streams]]:
        """What replaces the forward of the first block, the second, and so on; each takes the original as `run`."""
        return chain((self._first, self._second), repeat(self._later))

    def _first(self, run: Callable[..., Streams], *, hidden_states: Tensor, **others: object) -> Streams:
        self._image_before = hidden_states
        return run(hidden_states=hidden_states, **others)

    def _second(
        self, run: Callable[..., Streams], *, hidden_states: Tensor, encoder_hidden_states: Tensor, **others: object
    ) -> Streams:
        assert self._image_before is not None
        # It includes the residuals of ControlNets, so that a net that starts or ends counts as a difference.
        residual = hidden_states - self._image_before
        known = self._first_residual
        self._skipping = known is not None and _relative_difference(residual, known) <= self.threshold
        self.steps += 1
        self.skipped_steps += self._skipping
        if self._skipping:
            text, image = self._rest_residual
            return (encoder_hidden_states + text).to(encoder_hidden_states), (hidden_states + image).to(hidden_states)
        self._first_residual, self._rest_residual = residual, (0.0, 0.0)
        return self._later(run, hidden_states=hidden_states, encoder_hidden_states=encoder_hidden_states, **others)

    def _later(
        self, run: Callable[..., Streams], *, hidden_states: Tensor, encoder_hidden_states: Tensor, **others: object
    ) -> Streams:
        if self._skipping:
            return encoder_hidden_states, hidden_states
        text, image = run(hidden_states=hidden_states, encoder_hidden_states=encoder_hidden_states, **others)
        text_residual, image_residual = self._rest_residual
        self._rest_residual = (
            text_residual + (text.float() - encoder_hidden_states.float()),
            image_residual + (image.float() - hidden_states.float()),
        )
        return text, image

    def notes(self) -> Iterator[str]:
        """What the user should know about the result."""
        if self.skipped_steps:
            yield (
                f"block_cache {self.threshold:g} skipped blocks in {self.skipped_steps} of {self.steps} steps, which "
                "changed the image."
            )
        elif self.threshold:
            yield f"block_cache {self.threshold:g} skipped no blocks: no step was similar enough to the one before."


def _relative_difference(residual: Tensor, before: Tensor) -> float:
    """By what share two residuals [batch, tokens, channels] differ: the largest of all images."""
    differences = (residual - before).abs().float().mean((1, 2)) / before.abs().float().mean((1, 2))
    return float(differences.max())


@contextmanager
def blocks_cached(model: LocalModel, threshold: float) -> Generator[BlockCache]:
    """Within this context, for one call of a pipeline, steps similar to the one before run the first block only.

    A threshold of 0 changes nothing. Afterwards the transformer has the same modules and forwards as before.
    """
    cache = BlockCache(threshold)
    if threshold == 0:
        yield cache
        return
    blocks = [*model.denoiser.transformer_blocks, *model.denoiser.single_transformer_blocks]
    own_forwards: list[Any] = [vars(block).get("forward") for block in blocks]
    try:
        for block, forward in zip(blocks, cache.forwards(), strict=False):
            block.forward = partial(forward, block.forward)
        yield cache
    finally:
        for block, own_forward in zip(blocks, own_forwards, strict=True):
            vars(block).pop("forward", None)
            if own_forward is not None:
                block.forward = own_forward
