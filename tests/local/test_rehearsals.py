"""The benchmarks that need a GPU run on the day one is at hand: they are rehearsed with tiny networks."""

from __future__ import annotations

import pytest
from controlstack.benchmarks import bench_gpu


def test_the_gpu_benchmark_compares_every_family_with_every_number_of_nets(capsys: pytest.CaptureFixture[str]) -> None:
    bench_gpu.main(["--rehearse"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cases = [(row[0], row[1]) for row in rows[2:]]
    assert cases == [(f"{family.value} 64x64", str(nets)) for family in bench_gpu.FAMILIES for nets in (0, 1, 3)]
    assert {row[-1] for row in rows[2:]} == {"yes"}, "the engine must make the plain pipeline's picture"
