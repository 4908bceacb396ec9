"""A cache that keeps the values used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """The values used last, by key, up to a total size of `limit`. Thread-safe.

    `size_of` measures a value; without it every value counts 1, so that `limit` is a number of values. Room is made
    before a new value is made, since both at once might not fit in memory. The newest value stays even if it is larger
    than the limit. `on_evict` is called after values were dropped to make room. `hits` and `misses` count the calls of
    `get`.
    """

    def __init__(
        self, limit: int, size_of: Callable[[Value], int] = lambda _: 1, on_evict: Callable[[], object] = lambda: None
    ) -> None:
        if limit < 1:
            raise ValueError(f"The limit of a cache is {limit}. It must be at least 1.")
        self.limit = limit
        self.hits = self.misses = 0
        self._size_of = size_of
        self._on_evict = on_evict
        self._entries: OrderedDict[Key, tuple[object, Value]] = OrderedDict()
        self._pinned: frozenset[Key] = frozenset()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key, make: Callable[[], Value], version: object = None) -> Value:
        """The value of `key`. `make` makes it if it is missing, or if it was made for another `version`.

        The key and the version must hold everything that the value depends on. Other threads wait while a value is
        made, so `make` must not call `get` of the same cache. What `make` raises is passed on.
        """
        with self._lock:
            if key in self._entries and self._entries[key][0] == version:
                self.hits += 1
                self._entries.move_to_end(key)
                return self._entries[key][1]
            self.misses += 1
            self._entries.pop(key, None)
            self._make_room(1)
            value = make()
            self._entries[key] = (version, value)
            self._make_room(0, newest=key)
            return value

    def pin(self, keys: Iterable[Key]) -> None:
        """Never evict the values of these keys, even above the limit, until the next call of `pin`."""
        self._pinned = frozenset(keys)

    def clear(self) -> int:
        """Drop all values and return their number, or keep them all while a value is being made.

        It does not wait, so a finalizer may call it from any thread, including one that is in `get`.
        """
        if not self._lock.acquire(blocking=False):
            return 0
        try:
            count = len(self._entries)
            self._entries.clear()
            return count
        finally:
            self._lock.release()

    def _make_room(self, room: int, newest: Key | None = None) -> None:
        """Evict the values that were not used for longest until `room` is left."""
        sizes = {key: self._size_of(value) for key, (_, value) in self._entries.items()}
        excess = sum(sizes.values()) + room - self.limit
        evicted = False
        for key, size in sizes.items():
            if excess <= 0:
                break
            if key not in self._pinned and (newest is None or key != newest):
                del self._entries[key]
                excess -= size
                evicted = True
        if evicted:
            self._on_evict()
