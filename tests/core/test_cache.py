"""One cache for everything that is kept: the values used last stay, and room is made before a new one is made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import pytest
from controlstack.core.cache import Cache


def fill(cache: Cache[str, str], names: str) -> list[str]:
    """Ask for each of the names; returns those that were made."""
    made: list[str] = []
    for name in names:
        cache.get(name, lambda name=name: made.append(name) or name)
    return made


def test_a_value_is_made_once() -> None:
    cache: Cache[str, str] = Cache(2)
    assert fill(cache, "abab") == ["a", "b"]
    assert (cache.hits, cache.misses, len(cache)) == (2, 2, 2)


def test_the_value_not_used_for_longest_is_evicted() -> None:
    assert fill(Cache(2), "abacab") == ["a", "b", "c", "b"]


def test_none_is_a_value_as_well() -> None:
    cache: Cache[str, None] = Cache(1)
    for _ in range(2):
        cache.get("a", lambda: None)
    assert (cache.hits, cache.misses) == (1, 1)


def test_room_is_made_before_the_new_value_is_made() -> None:
    evictions: list[int] = []
    cache: Cache[str, str] = Cache(2, on_evict=lambda: evictions.append(len(cache)))
    fill(cache, "ab")
    assert cache.get("c", lambda: f"{len(cache)} {evictions}") == "1 [1]"
    assert evictions == [1]


def test_a_value_that_cannot_be_made_leaves_the_one_used_last() -> None:
    cache: Cache[str, str] = Cache(2)
    fill(cache, "ab")
    with pytest.raises(ZeroDivisionError):
        cache.get("c", lambda: str(1 // 0))
    assert fill(cache, "b") == []
    assert "a" not in cache and "c" not in cache


def test_a_value_of_another_version_is_made_anew_and_takes_no_other_place() -> None:
    cache: Cache[str, str] = Cache(2)
    fill(cache, "ab")
    assert cache.get("a", lambda: f"new, with {len(cache)} other", version=2) == "new, with 1 other"
    assert cache.get("a", lambda: "never", version=2) == "new, with 1 other"
    assert "b" in cache


def test_pinned_values_stay_above_the_limit_until_others_are_pinned() -> None:
    cache: Cache[str, str] = Cache(2)
    cache.pin("abc")
    fill(cache, "abc")
    assert len(cache) == 3
    cache.pin("")
    fill(cache, "d")
    assert [name for name in "abcd" if name in cache] == ["c", "d"]


def test_a_pinned_value_goes_after_a_newer_one_that_is_not() -> None:
    cache: Cache[str, str] = Cache(2)
    fill(cache, "ab")
    cache.pin("a")
    fill(cache, "c")
    assert "a" in cache and "b" not in cache


def test_the_limit_is_a_sum_of_sizes() -> None:
    cache: Cache[str, str] = Cache(10, size_of=len)
    for name, size in (("a", 4), ("b", 4), ("c", 4)):
        cache.get(name, lambda size=size: "x" * size)
    assert [name for name in "abc" if name in cache] == ["b", "c"]
    cache.get("d", lambda: "x" * 11)
    assert [name for name in "abcd" if name in cache] == ["d"], "the newest stays, however large it is"


def test_clear_drops_everything() -> None:
    cache: Cache[str, str] = Cache(2)
    fill(cache, "ab")
    assert cache.clear() == 2
    assert fill(cache, "ab") == ["a", "b"]


def test_clear_from_within_a_making_drops_nothing_and_does_not_wait() -> None:
    """A finalizer may run in the thread that makes a value."""
    cache: Cache[str, int] = Cache(2)
    cache.get("a", lambda: 1)
    assert cache.get("b", cache.clear) == 0
    assert "a" in cache and "b" in cache


def test_clear_from_another_thread_does_not_wait_for_a_making() -> None:
    cache: Cache[str, str] = Cache(2)
    begun, cleared = Event(), Event()

    def make() -> str:
        begun.set()
        assert cleared.wait(5)
        return "a"

    thread = Thread(target=cache.get, args=("a", make))
    thread.start()
    assert begun.wait(5)
    cache.clear()
    cleared.set()
    thread.join()
    assert "a" in cache


def test_threads_that_ask_for_one_value_at_once_make_it_once() -> None:
    cache: Cache[str, str] = Cache(2)
    made: list[str] = []
    together = Barrier(8)

    def ask() -> str:
        together.wait(5)
        return cache.get("a", lambda: made.append("a") or "a")

    with ThreadPoolExecutor(8) as threads:
        assert [future.result() for future in [threads.submit(ask) for _ in range(8)]] == ["a"] * 8
    assert made == ["a"] and (cache.hits, cache.misses) == (7, 1)


def test_a_cache_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Cache(0)
