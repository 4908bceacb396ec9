"""What a user sees while a generation runs."""

from __future__ import annotations

import re
import time

import pytest
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.server.graphs import canny_graph

pytestmark = pytest.mark.server


def test_the_node_says_how_many_seconds_are_left_and_not_more_than_ten_times_a_second(comfy: ComfyServer) -> None:
    comfy.run(canny_graph(8001))  # what is loaded at the first run is not waited for in the second
    started = time.monotonic()
    result = comfy.run(canny_graph(8002, steps=60))
    seconds = time.monotonic() - started
    *texts, last = [text for node, text in result.texts if node == "21"]
    assert last == "", "there is nothing to say when it is done"
    parts = [re.fullmatch(r"step (\d+) of 60, (\d+) s left", text) for text in texts]
    assert all(parts), texts
    steps, left = ([int(part[group]) for part in parts if part] for group in (1, 2))
    assert steps == sorted(set(steps))
    assert (steps[-1], left[-1]) == (60, 0)
    assert left[0] <= 3 * seconds
    assert 2 <= len(texts) <= 10 * seconds + 2
    assert result.previews <= 10 * seconds + 2
