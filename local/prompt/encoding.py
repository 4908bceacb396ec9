"""Text encoding: from prompts to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...models.families import Family
from .weights import parse_weights

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.local_model import LocalModel


@dataclass(frozen=True)
class Encoded:
    """One prompt as the denoiser takes it: `embeds` [1, tokens, width], and `pooled` [1, width] if it needs one."""

    embeds: Tensor
    pooled: Tensor | None = None

    def to(self, device: Any) -> Encoded:
        """The embeddings on another device."""
        return Encoded(self.embeds.to(device), None if self.pooled is None else self.pooled.to(device))


def encode_prompts(
    model: LocalModel, texts: Sequence[str], clip_skip: int = 0, state: Hashable = None
) -> list[Encoded]:
    """The embeddings of the prompts, all of the same length, on the model's device.

    CLIP encodes a text longer than its window (75 tokens) in several windows, whose embeddings are concatenated; T5
    (FLUX) takes it as a whole. Weights act as in ComfyUI: the difference to the embedding of the empty prompt is
    multiplied. The pooled embedding is that of the first window, without weights. `clip_skip` is the number of CLIP's
    last layers to skip. Embeddings are cached; `state` must identify whatever else acts on the encoders (LoRAs).
    """
    count_of, encode = _FAMILIES[model.family]
    count = max(count_of(model, text) for text in texts)

    keys = [("prompt", text, count, clip_skip, state, model.dtype) for text in texts]
    embeddings = [
        model.results.get(key, lambda text=text: encode(model, text, count, clip_skip).to("cpu"))
        for key, text in zip(keys, texts, strict=True)
    ]
    return [encoded.to(model.device) for encoded in embeddings]


# -- CLIP: windows of 77 tokens ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """The token ids of one window, with start, end and padding, and a weight for each token."""

    ids: list[int]
    weights: list[float]


def _split(text: str, tokenizer: Any, encoder: Any, count: int = 1) -> list[_Window]:
    """The windows of a text; at least `count`, the last ones empty if the text is shorter."""
    size = encoder.config.max_position_embeddings - 2
    ids, weights = _tokenize(text, tokenizer)
    windows: list[_Window] = []
    for start in range(0, max(len(ids), count * size, 1), size):
        piece, piece_weights = ids[start : start + size], weights[start : start + size]
        padding = size - len(piece)
        framed = [tokenizer.bos_token_id, *piece, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding]
        windows.append(_Window(framed, [1.0, *piece_weights, 1.0, *[1.0] * padding]))
    return windows


def _tokenize(text: str, tokenizer: Any) -> tuple[list[int], list[float]]:
    """The token ids of a text with weights, and the weight of each."""
    ids: list[int] = []
    weights: list[float] = []
    for piece, weight in parse_weights(text):
        piece_ids = tokenizer(piece, add_special_tokens=False, verbose=False).input_ids
        ids += piece_ids
        weights += [weight] * len(piece_ids)
    return ids, weights


def _apply_weights(hidden: Tensor, weights: Sequence[Sequence[float]], empty: Callable[[], Tensor]) -> Tensor:
    """Hidden states [windows, tokens, width] with weights applied; `empty` gives those of the empty prompt."""
    import torch

    if all(weight == 1 for window in weights for weight in window):
        return hidden
    factors = torch.tensor(weights, device=hidden.device, dtype=hidden.dtype)[..., None]
    base = empty()
    # Tokens of weight 1 are not changed, to the last bit.
    return torch.where(factors == 1, hidden, base + (hidden - base) * factors)


def _run(encoder: Any, ids: Sequence[Sequence[int]], **options: Any) -> Any:
    """The output of a text encoder for token ids [windows, tokens]."""
    import torch

    with torch.no_grad():
        return encoder(torch.tensor(list(ids), device=encoder.device), **options)


def _encode_clip(tokenizer: Any, encoder: Any, text: str, count: int, hidden_of: Callable[[Any], Tensor]) -> Tensor:
    """Embeddings [1, count * 77, width]; `hidden_of` picks the hidden states from the encoder's output."""
    windows = _split(text, tokenizer, encoder, count)
    hidden = hidden_of(_run(encoder, [window.ids for window in windows], output_hidden_states=True))
    empty = [_split("", tokenizer, encoder)[0].ids]
    weighted = _apply_weights(
        hidden,
        [window.weights for window in windows],
        lambda: hidden_of(_run(encoder, empty, output_hidden_states=True)),
    )
    return weighted.flatten(0, 1)[None]


def _count_windows(model: LocalModel, text: str) -> int:
    return len(_split(text, model.components["tokenizer"], model.components["text_encoder"]))


def _text_encoders(model: LocalModel) -> list[tuple[Any, Any]]:
    """Each text encoder of the model with its tokenizer in front."""
    names = zip(model.facts.tokenizers, model.facts.text_encoders, strict=True)
    return [(model.components[tokenizer], model.components[encoder]) for tokenizer, encoder in names]


def _encode_sd15(model: LocalModel, text: str, count: int, clip_skip: int) -> Encoded:
    ((tokenizer, encoder),) = _text_encoders(model)

    def hidden(output: Any) -> Tensor:
        if clip_skip == 0:
            return output.last_hidden_state
        # transformers 5.6 flattened CLIPTextModel; in older versions the layers are one level deeper.
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        return norm(output.hidden_states[-1 - clip_skip])

    return Encoded(_encode_clip(tokenizer, encoder, text, count, hidden))


def _encode_sdxl(model: LocalModel, text: str, count: int, clip_skip: int) -> Encoded:
    import torch

    def hidden(output: Any) -> Tensor:
        # SDXL was trained on the second to last layer, without the final norm.
        return output.hidden_states[-2 - clip_skip]

    pairs = _text_encoders(model)
    embeds = torch.cat([_encode_clip(tokenizer, encoder, text, count, hidden) for tokenizer, encoder in pairs], dim=-1)
    tokenizer, encoder = pairs[1]
    first = _split(text, tokenizer, encoder)[0].ids
    return Encoded(embeds, _run(encoder, [first]).text_embeds)


# -- FLUX: T5 for the tokens, CLIP for the pooled embedding ------------------------------------------------------------


def _encode_flux(model: LocalModel, text: str, count: int, clip_skip: int) -> Encoded:
    (clip_tokenizer, clip), (tokenizer, t5) = _text_encoders(model)
    first = _split(text, clip_tokenizer, clip)[0].ids

    def window(words: str) -> _Window:
        ids, weights = _tokenize(words, tokenizer)
        padding = count - len(ids) - 1
        ids = [*ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding]
        return _Window(ids, [*weights, 1.0, *[1.0] * padding])

    whole = window(text)
    hidden = _run(t5, [whole.ids]).last_hidden_state
    embeds = _apply_weights(hidden, [whole.weights], lambda: _run(t5, [window("").ids]).last_hidden_state)
    return Encoded(embeds, _run(clip, [first]).pooler_output)


def _count_t5_tokens(model: LocalModel, text: str) -> int:
    """The length of T5's input: what the family was trained with, or more for a longer prompt, which T5 can take."""
    ids, _ = _tokenize(text, model.components[model.facts.tokenizers[1]])
    return max(model.facts.tokens, len(ids) + 1)


# For each family: how to count the windows (or T5's tokens) of a text, and how to encode a text in that many.
_FAMILIES: Mapping[Family, tuple[Callable[[LocalModel, str], int], Callable[[LocalModel, str, int, int], Encoded]]] = {
    Family.SD15: (_count_windows, _encode_sd15),
    Family.SDXL: (_count_windows, _encode_sdxl),
    Family.FLUX_DEV: (_count_t5_tokens, _encode_flux),
    Family.FLUX_SCHNELL: (_count_t5_tokens, _encode_flux),
}
