"""The configurations of each family's networks and scheduler, which single files do not carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...models.families import Family
from ...models.library import Library, read_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_NAMES = {
    Family.SD15: "sd15",
    Family.SDXL: "sdxl",
    Family.FLUX_DEV: "flux_dev",
    Family.FLUX_SCHNELL: "flux_schnell",
}


def family_configs(family: Family, library: Library) -> dict[str, dict[str, Any]]:
    """The configuration of every network of a family, and of its scheduler, by component."""
    return read_config(library.configs or CONFIGS, f"{_NAMES[family]}.json")
