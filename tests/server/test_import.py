"""What loading the pack costs a ComfyUI that is up already."""

from __future__ import annotations

from controlstack.benchmarks.bench_import import HEAVY, measure


def test_loading_the_pack_brings_no_heavy_module_into_comfyui() -> None:
    assert set(measure()["new"]) & HEAVY == set()
