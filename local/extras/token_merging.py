"""Token merging (Bolya & Hoffman 2023, https://arxiv.org/abs/2303.17604): self-attention over fewer tokens."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ...core.problems import Problem, ProblemKind
from ..model.local_model import LocalModel

# tomesd keeps at least one of every 2 x 2 tokens.
MAX_MERGED = 0.75

NO_TOKEN_MERGING = ProblemKind(
    "no_token_merging", "{target} cannot merge tokens; only SD 1.5 and SDXL can. Set merge_tokens to {suggestion}."
)
MERGED_SHARE_OUT_OF_RANGE = ProblemKind(
    "merged_share_out_of_range",
    "merge_tokens is {value}. It must be from 0 to {maximum}. Set it to {suggestion}.",
)
TOMESD_MISSING = ProblemKind(
    "tomesd_missing",
    "merge_tokens is {value}, but the package tomesd is not installed. Install it with `pip install tomesd`, "
    "or set merge_tokens to {suggestion}.",
)


def merging_problems(model: LocalModel, share: float) -> Iterator[Problem]:
    """What prevents merging this share (0..1) of the tokens; 0 is always possible."""
    if share and model.facts.flow:
        yield NO_TOKEN_MERGING("merge_tokens", share, 0.0, target=model.name)
    elif not 0 <= share <= MAX_MERGED:
        nearest = min(max(share, 0.0), MAX_MERGED)
        yield MERGED_SHARE_OUT_OF_RANGE("merge_tokens", share, nearest, maximum=MAX_MERGED)
    elif share and find_spec("tomesd") is None:
        yield TOMESD_MISSING("merge_tokens", share, 0.0)


def merging_notes(share: float) -> Iterator[str]:
    """What the user should know about the result."""
    if share:
        yield f"Token merging ({share:.2g} of the tokens) changed the image."


@contextmanager
def tokens_merged(model: LocalModel, share: float) -> Generator[None]:
    """Within this context the UNet merges a share (0..0.75) of its tokens at its highest resolution; 0 changes nothing.

    Afterwards it computes the same as before, to the last bit.
    """
    if share == 0:
        yield
        return
    import tomesd

    try:
        # tomesd's random choice of tokens depends on torch's global state and on the batch size. Without it, an
        # image depends on its own seed alone.
        tomesd.apply_patch(model.denoiser, ratio=share, max_downsample=_first_attention(model), use_rand=False)
        yield
    finally:
        tomesd.remove_patch(model.denoiser)
        for module in model.denoiser.modules():
            vars(module).pop("_tome_info", None)  # remove_patch leaves it behind


def _first_attention(model: LocalModel) -> int:
    """By how much the first level with attention is smaller than the latents: 1 for SD 1.5, 2 for SDXL."""
    blocks = model.denoiser.config.down_block_types
    return 2 ** next(level for level, block in enumerate(blocks) if "Attn" in block)
