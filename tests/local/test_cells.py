"""Every case of docs/local.md on small models runs, or is refused with the reason, as the page says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.local.engine.generate import generate
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.pipelines import Task
from controlstack.models.families import Family
from controlstack.tools.local_cells import PAGE, SIZE, Cell, cells, with_tables

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cell", cells(), ids=str)
def test_the_case_runs_or_is_refused_with_the_reason(stocked: Callable[[Family], LocalModel], cell: Cell) -> None:
    model = stocked(cell.family)
    request = cell.request(lora="diffusers.safetensors")
    if cell.refusal():
        with pytest.raises(InvalidRequest, match="Invalid input"):
            generate(model, request)
        return
    result = generate(model, request)
    assert result.images.shape == (1, SIZE, SIZE, 3)
    assert result.images.isfinite().all()
    assert len(result.nets) == len(request.controls)
    if cell.references and cell.loras:  # the case with everything in it stands for the others of its row
        assert torch.equal(generate(model, request).images, result.images)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL, Family.FLUX_DEV])
def test_every_part_of_a_full_request_acts(stocked: Callable[[Family], LocalModel], family: Family) -> None:
    model = stocked(family)
    request = Cell(family, Task.TEXT_TO_IMAGE, "two nets", True, True).request(lora="diffusers.safetensors")
    whole = generate(model, request).images
    for part in ("controls", "references", "loras"):
        assert not torch.equal(generate(model, replace(request, **{part: ()})).images, whole)


def test_the_local_engine_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page
