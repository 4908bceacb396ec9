"""Encodes each control map once per generation instead of at every step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .control import Control

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def hints_encoded_once(controls: Sequence[Control]) -> Generator[None]:
    """Within this context, a ControlNet that gets the same hint tensor again reuses the embedding it made of it."""
    found = (_hint_encoder(control.net) for control in controls)
    encoders = list(dict.fromkeys(encoder for encoder in found if encoder is not None))
    own_forwards: list[Any] = [vars(encoder).get("forward") for encoder in encoders]
    try:
        for encoder in encoders:
            encoder.forward = _caching(encoder.forward)
        yield
    finally:
        for encoder, own_forward in zip(encoders, own_forwards, strict=True):
            del encoder.forward
            if own_forward is not None:
                encoder.forward = own_forward


def _hint_encoder(net: Any) -> Any:
    """The module of a ControlNet that encodes the map, or None if the autoencoder does."""
    return getattr(net, "controlnet_cond_embedding", None) or getattr(net, "input_hint_block", None)


def _caching(encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    # Hints are compared by identity, which a core.cache.Cache cannot do: `==` of tensors compares their elements. They
    # are kept, so that no new tensor can get the address of an old one and be mistaken for it.
    embeddings: list[tuple[Tensor, Tensor]] = []

    def forward(hint: Tensor) -> Tensor:
        for known_hint, embedding in embeddings:
            if known_hint is hint:
                return embedding
        embedding = encode(hint)
        embeddings.append((hint, embedding))
        return embedding

    return forward
