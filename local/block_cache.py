"""First-block cache: a step whose first block changes the picture as before takes from before what the others did.

The method is ParaAttention's (https://github.com/chengzeyi/ParaAttention), which diffusers has as FirstBlockCache. That
one keeps the residuals of ControlNets with what the blocks did, and they are added once more; and of FLUX's pipelines
only the one from text without nets can run it. This one keeps what the blocks did and nothing else, so that the nets of
every step act as they are, in all pipelines. Without nets both make the same picture of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING

from ..core.errors import Problem
from .model import LocalModel

if TYPE_CHECKING:
    from torch import Tensor

    Streams = tuple[Tensor, Tensor]  # of the text and of the picture, as every block takes and gives them

# Beyond it the change may be of another kind altogether.
MOST_DIFFERENCE = 1.0


def caching_problems(model: LocalModel, threshold: float) -> Iterator[Problem]:
    """What keeps the model from leaving blocks out; 0 is always possible."""
    if threshold and not model.facts.flow:
        yield Problem("block_cache", str(threshold), "only the transformers of FLUX.1 can do it", "Set it to 0.")
    elif not 0 <= threshold <= MOST_DIFFERENCE:
        limit, remedy = f"it must be 0 to {MOST_DIFFERENCE:g}", "Set it into this range."
        yield Problem("block_cache", str(threshold), limit, remedy)


@dataclass
class BlockCache:
    """What a transformer's blocks did in the last step that ran whole, for one pass of a pipeline.

    `threshold` is how much the change that the first block makes may differ from that step's, as a share of it. Of
    `steps` calls, `short` ones ran the first block only. The state belongs to one call a step: FLUX needs no second one
    for guidance.
    """

    threshold: float
    steps: int = 0
    short: int = 0
    _entered: Tensor | None = None
    """The picture's stream before the first block."""
    _change: Tensor | None = None
    """What had become of it before the second block, in the last whole step."""
    _rest: tuple[Tensor | float, Tensor | float] = (0.0, 0.0)
    """What all other blocks then added to the streams, in fp32."""
    _is_short: bool = False

    def forwards(self) -> Iterator[Callable[..., Streams]]:
        """What runs in the place of the first block, the second, and so on; each takes the block's own as `run`."""
        return chain((self._first, self._second), repeat(self._later))

    def _first(self, run: Callable[..., Streams], *, hidden_states: Tensor, **others: object) -> Streams:
        self._entered = hidden_states
        return run(hidden_states=hidden_states, **others)

    def _second(
        self, run: Callable[..., Streams], *, hidden_states: Tensor, encoder_hidden_states: Tensor, **others: object
    ) -> Streams:
        assert self._entered is not None
        # A net has added to the picture by now: one that begins or ends counts as a difference.
        change = hidden_states - self._entered
        self._is_short = self._change is not None and _difference(change, self._change) <= self.threshold
        self.steps += 1
        self.short += self._is_short
        if self._is_short:
            text, picture = self._rest
            return (encoder_hidden_states + text).to(encoder_hidden_states), (hidden_states + picture).to(hidden_states)
        self._change, self._rest = change, (0.0, 0.0)
        return self._later(run, hidden_states=hidden_states, encoder_hidden_states=encoder_hidden_states, **others)

    def _later(
        self, run: Callable[..., Streams], *, hidden_states: Tensor, encoder_hidden_states: Tensor, **others: object
    ) -> Streams:
        if self._is_short:
            return encoder_hidden_states, hidden_states
        text, picture = run(hidden_states=hidden_states, encoder_hidden_states=encoder_hidden_states, **others)
        before_text, before_picture = self._rest
        self._rest = (
            before_text + (text.float() - encoder_hidden_states.float()),
            before_picture + (picture.float() - hidden_states.float()),
        )
        return text, picture

    def notes(self) -> Iterator[str]:
        """What the user should know about it."""
        if self.short:
            yield (
                f"In {self.short} of {self.steps} steps only the first block ran (block_cache {self.threshold:g}): the "
                "picture is another than without."
            )
        elif self.threshold:
            yield f"No step was near enough to the one before for block_cache {self.threshold:g} to leave blocks out."


def _difference(change: Tensor, before: Tensor) -> float:
    """How much two changes [batch, tokens, channels] differ, as a share of the one before: the most of all images."""
    differences = (change - before).abs().float().mean((1, 2)) / before.abs().float().mean((1, 2))
    return float(differences.max())


@contextmanager
def blocks_cached(model: LocalModel, threshold: float) -> Iterator[BlockCache]:
    """While this lasts, for one pass of a pipeline, steps that begin as before run the first block only.

    0 changes nothing. Afterwards the transformer is what it was, the very same objects.
    """
    cache = BlockCache(threshold)
    if threshold == 0:
        yield cache
        return
    blocks = [*model.denoiser.transformer_blocks, *model.denoiser.single_transformer_blocks]
    before = [vars(block).get("forward") for block in blocks]
    try:
        for block, forward in zip(blocks, cache.forwards(), strict=False):
            block.forward = partial(forward, block.forward)
        yield cache
    finally:
        for block, own in zip(blocks, before, strict=True):
            vars(block).pop("forward", None)
            if own is not None:
                block.forward = own
