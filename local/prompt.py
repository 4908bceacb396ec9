"""Prompts become text embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def encode_prompts(texts: Sequence[str], tokenizer: Any, text_encoder: Any, clip_skip: int = 0) -> list[Tensor]:
    """One embedding [1, tokens, width] per text, all of the same length.

    A text longer than the encoder's window (75 words or word pieces) is encoded in several windows, one behind the
    other, so that nothing is cut off. `clip_skip` leaves out that many of the encoder's last layers.
    """
    import torch

    window = text_encoder.config.max_position_embeddings - 2
    pieces = [tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts]
    windows = max(1, *(-(-len(piece) // window) for piece in pieces))
    embeddings = []
    for piece in pieces:
        rows = [_framed(piece[index * window : (index + 1) * window], window, tokenizer) for index in range(windows)]
        tokens = torch.tensor(rows, device=text_encoder.device)
        with torch.no_grad():
            embeddings.append(_encode(text_encoder, tokens, clip_skip).flatten(0, 1)[None])
    return embeddings


def _framed(piece: Sequence[int], window: int, tokenizer: Any) -> list[int]:
    padding = [tokenizer.pad_token_id] * (window - len(piece))
    return [tokenizer.bos_token_id, *piece, tokenizer.eos_token_id, *padding]


def _encode(text_encoder: Any, tokens: Tensor, clip_skip: int) -> Tensor:
    if clip_skip == 0:
        return text_encoder(tokens).last_hidden_state
    hidden = text_encoder(tokens, output_hidden_states=True).hidden_states[-1 - clip_skip]
    # transformers 5.6 flattened CLIPTextModel; before, the layers sat one level below.
    return getattr(text_encoder, "text_model", text_encoder).final_layer_norm(hidden)
