"""Token merging (Bolya & Hoffman 2023, https://arxiv.org/abs/2303.17604): self-attention over fewer tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ..core.errors import Problem
from .model import LocalModel

# Of every square of two by two tokens one stays, so no more than three in four can be merged.
MOST_MERGED = 0.75


def merging_problems(model: LocalModel, share: float) -> Iterator[Problem]:
    """What keeps the model from merging: a share out of range, no UNet, no package tomesd; 0 is always possible."""
    off = "Set it to 0"
    if share and model.facts.flow:
        yield Problem("merge_tokens", str(share), "only the UNets of SD 1.5 and SDXL merge tokens", f"{off}.")
    elif not 0 <= share <= MOST_MERGED:
        yield Problem("merge_tokens", str(share), f"it must be 0 to {MOST_MERGED}", "Set it into this range.")
    elif share and find_spec("tomesd") is None:
        limit = "merging tokens needs the package tomesd, which is not installed"
        yield Problem("merge_tokens", str(share), limit, f"{off}, or install it with: pip install tomesd")


def merging_notes(share: float) -> Iterator[str]:
    """What the user should know about it."""
    if share:
        yield f"A share of {share:.2g} of the tokens was merged: the picture is another than without."


@contextmanager
def tokens_merged(model: LocalModel, share: float) -> Iterator[None]:
    """While this lasts, the UNet merges a share (0 to 0.75) of its tokens where they are most; 0 changes nothing.

    Afterwards it computes what it did before, to the last bit.
    """
    if share == 0:
        yield
        return
    import tomesd

    try:
        # Its random choice of tokens comes from torch's global state and depends on the size of the batch; without
        # it, each image is still made by its own seed alone.
        tomesd.apply_patch(model.denoiser, ratio=share, max_downsample=_first_attention(model), use_rand=False)
        yield
    finally:
        tomesd.remove_patch(model.denoiser)
        for module in model.denoiser.modules():
            vars(module).pop("_tome_info", None)  # tomesd leaves its notes behind


def _first_attention(model: LocalModel) -> int:
    """How much smaller than the latents the largest pictures are that the UNet attends to: 1 for SD 1.5, 2 for SDXL."""
    blocks = model.denoiser.config.down_block_types
    return 2 ** next(level for level, block in enumerate(blocks) if "Attn" in block)
