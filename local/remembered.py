"""What was computed once and may be needed again: embeddings of prompts and references."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

Value = TypeVar("Value")


class Remembered:
    """The last `size` results by what they were made from; `hits` and `misses` count how often that helped."""

    def __init__(self, size: int = 64) -> None:
        self.size = size
        self.hits = self.misses = 0
        self._values: OrderedDict[Hashable, object] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made now if it is not there. The key must hold all that the value depends on."""
        if key in self._values:
            self.hits += 1
            self._values.move_to_end(key)
            return self._values[key]  # pyright: ignore[reportReturnType]
        self.misses += 1
        value = make()
        self._values[key] = value
        if len(self._values) > self.size:
            self._values.popitem(last=False)
        return value
