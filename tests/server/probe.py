"""Snippets of Python run beside ComfyUI's real modules, without a server, to see what the pack does to them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlstack.workshop.comfyui import find_comfyui

ROOT = Path(__file__).resolve().parents[2]

# Runs inside ComfyUI's folder, with its real modules, and prints what the snippets find out.
PROBE = """
import gc, importlib.util, json, sys
sys.path.insert(0, {comfyui!r})
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config, server
import comfy.model_management as mm
import nodes, torch
spec = importlib.util.spec_from_file_location("pack", {init!r}, submodule_search_locations=[{root!r}])
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
from pack.nodes.memory import ComfyMemory
everything = {{}}
memory = ComfyMemory()

def network(numbers=1000):
    return torch.nn.Sequential(torch.nn.Linear(numbers, 1, bias=False), torch.nn.LayerNorm(1))

def loaded(managed):
    return any(known.model is managed.patcher for known in mm.current_loaded_models)

{snippets}
print(json.dumps(everything))
"""


def probe(snippets: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What each snippet has put into its dictionary `found`; they run one after the other in one process."""
    comfyui = find_comfyui()
    parts = [f"found = everything[{name!r}] = {{}}\n{snippet}" for name, snippet in snippets.items()]
    script = PROBE.format(
        comfyui=str(comfyui), init=str(ROOT / "__init__.py"), root=str(ROOT), snippets="\n".join(parts)
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=comfyui)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])
