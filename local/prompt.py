"""Prompts become text embeddings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .families import Family
from .prompt_weights import parse_weights

if TYPE_CHECKING:
    from torch import Tensor

    from .model import LocalModel


@dataclass(frozen=True)
class Encoded:
    """One prompt as the denoiser takes it: `embeds` [1, tokens, width], and `pooled` [1, width] where it needs one."""

    embeds: Tensor
    pooled: Tensor | None = None

    def to(self, device: Any) -> Encoded:
        """The same on another device."""
        return Encoded(self.embeds.to(device), None if self.pooled is None else self.pooled.to(device))


def encode_prompts(
    model: LocalModel, texts: Sequence[str], clip_skip: int = 0, state: Hashable = None
) -> list[Encoded]:
    """The prompts as the model's denoiser takes them, all of the same length, on its device.

    A text longer than the window of a CLIP encoder (75 words or word pieces) is encoded in several windows, one behind
    the other; T5 (FLUX) reads it in one. Weights act as in ComfyUI: what a word adds to the embedding of the empty
    prompt is multiplied. The pooled embedding is that of the first window, without weights. `clip_skip` leaves out that
    many of CLIP's last layers. `state` says what else acts on the encoders (LoRAs): what was encoded before under the
    same state is not encoded again.
    """
    count_of, encode = _FAMILIES[model.family]
    count = max(count_of(model, text) for text in texts)

    keys = [("prompt", text, count, clip_skip, state, model.dtype) for text in texts]
    made = [
        model.results.get(key, lambda text=text: encode(model, text, count, clip_skip).to("cpu"))
        for key, text in zip(keys, texts, strict=True)
    ]
    return [encoded.to(model.device) for encoded in made]


# -- CLIP: windows of 77 tokens ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """One window of an encoder with its frame and padding; a weight for each token."""

    ids: list[int]
    weights: list[float]


def _rows(text: str, tokenizer: Any, encoder: Any, count: int = 1) -> list[_Row]:
    """The windows of a text, filled up with empty ones to `count`."""
    size = encoder.config.max_position_embeddings - 2
    ids, weights = _tokens(text, tokenizer)
    rows = []
    for start in range(0, max(len(ids), count * size, 1), size):
        piece, acting = ids[start : start + size], weights[start : start + size]
        spare = size - len(piece)
        framed = [tokenizer.bos_token_id, *piece, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * spare]
        rows.append(_Row(framed, [1.0, *acting, 1.0, *[1.0] * spare]))
    return rows


def _tokens(text: str, tokenizer: Any) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    weights: list[float] = []
    for piece, weight in parse_weights(text):
        found = tokenizer(piece, add_special_tokens=False, verbose=False).input_ids
        ids += found
        weights += [weight] * len(found)
    return ids, weights


def _weigh(hidden: Tensor, weights: Sequence[Sequence[float]], empty: Callable[[], Tensor]) -> Tensor:
    """Hidden states [rows, tokens, width] with the weights applied; `empty` gives those of the empty prompt."""
    import torch

    if all(weight == 1 for row in weights for weight in row):
        return hidden
    factors = torch.tensor(weights, device=hidden.device, dtype=hidden.dtype)[..., None]
    start = empty()
    # Words of weight 1 stay as they are to the last bit.
    return torch.where(factors == 1, hidden, start + (hidden - start) * factors)


def _run(encoder: Any, rows: Sequence[Sequence[int]], **options: Any) -> Any:
    import torch

    with torch.no_grad():
        return encoder(torch.tensor(list(rows), device=encoder.device), **options)


def _clip(tokenizer: Any, encoder: Any, text: str, count: int, hidden_of: Callable[[Any], Tensor]) -> Tensor:
    """[1, count * 77, width]; `hidden_of` picks the hidden states out of the encoder's output."""
    rows = _rows(text, tokenizer, encoder, count)
    hidden = hidden_of(_run(encoder, [row.ids for row in rows], output_hidden_states=True))
    empty = [_rows("", tokenizer, encoder)[0].ids]
    weighed = _weigh(
        hidden,
        [row.weights for row in rows],
        lambda: hidden_of(_run(encoder, empty, output_hidden_states=True)),
    )
    return weighed.flatten(0, 1)[None]


def _windows(model: LocalModel, text: str) -> int:
    return len(_rows(text, model.components["tokenizer"], model.components["text_encoder"]))


def _encoders(model: LocalModel) -> list[Any]:
    return [model.components[name] for name in model.facts.text_encoders]


def _pairs(model: LocalModel) -> list[tuple[Any, Any]]:
    tokenizers = [model.components[name] for name in model.facts.tokenizers]
    return list(zip(tokenizers, _encoders(model), strict=True))


def _sd15(model: LocalModel, text: str, count: int, clip_skip: int) -> Encoded:
    ((tokenizer, encoder),) = _pairs(model)

    def hidden(output: Any) -> Tensor:
        if clip_skip == 0:
            return output.last_hidden_state
        # transformers 5.6 flattened CLIPTextModel; before, the layers sat one level below.
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        return norm(output.hidden_states[-1 - clip_skip])

    return Encoded(_clip(tokenizer, encoder, text, count, hidden))


def _sdxl(model: LocalModel, text: str, count: int, clip_skip: int) -> Encoded:
    import torch

    def hidden(output: Any) -> Tensor:
        # SDXL was trained on the last layer but one, without the final norm.
        return output.hidden_states[-2 - clip_skip]

    pairs = _pairs(model)
    embeds = torch.cat([_clip(tokenizer, encoder, text, count, hidden) for tokenizer, encoder in pairs], dim=-1)
    tokenizer, encoder = pairs[1]
    first = _rows(text, tokenizer, encoder)[0].ids
    return Encoded(embeds, _run(encoder, [first]).text_embeds)


# -- FLUX: T5 for the words, CLIP for the whole ------------------------------------------------------------------------


def _flux(model: LocalModel, text: str, count: int, clip_skip: int) -> Encoded:
    (clip_tokenizer, clip), (tokenizer, t5) = _pairs(model)
    first = _rows(text, clip_tokenizer, clip)[0].ids

    def framed(words: str) -> _Row:
        ids, weights = _tokens(words, tokenizer)
        spare = count - len(ids) - 1
        ids = [*ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * spare]
        return _Row(ids, [*weights, 1.0, *[1.0] * spare])

    row = framed(text)
    hidden = _run(t5, [row.ids]).last_hidden_state
    embeds = _weigh(hidden, [row.weights], lambda: _run(t5, [framed("").ids]).last_hidden_state)
    return Encoded(embeds, _run(clip, [first]).pooler_output)


def _t5_length(model: LocalModel, text: str) -> int:
    """Tokens T5 is given: what the family was trained with, or more for a longer prompt, which T5 can read."""
    ids, _ = _tokens(text, model.components[model.facts.tokenizers[1]])
    return max(model.facts.tokens, len(ids) + 1)


# How a family counts the windows (or tokens) of a text, and how it encodes a text in that many.
_FAMILIES: Mapping[Family, tuple[Callable[[LocalModel, str], int], Callable[[LocalModel, str, int, int], Encoded]]] = {
    Family.SD15: (_windows, _sd15),
    Family.SDXL: (_windows, _sdxl),
    Family.FLUX_DEV: (_t5_length, _flux),
    Family.FLUX_SCHNELL: (_t5_length, _flux),
}
