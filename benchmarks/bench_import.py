"""The cost of loading the pack into ComfyUI: the time, and the modules it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from controlstack.workshop.comfyui import find_comfyui

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"cv2", "diffusers", "transformers", "controlnet_aux", "accelerate", "peft", "scipy", "timm"}

# Runs in ComfyUI's folder. Everything that ComfyUI itself imports is imported before the clock starts.
PROBE = """
import asyncio, importlib.util, json, sys, time, types
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, {comfyui!r})
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config, server, nodes, comfy_api.latest
from aiohttp import web
# The pack adds its routes to the server, which ComfyUI makes before it loads packs.
server.PromptServer.instance = types.SimpleNamespace(routes=web.RouteTableDef())
before = set(sys.modules)
started = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack", {init!r}, submodule_search_locations=[{root!r}])
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
for node in asyncio.run(extension.get_node_list()):
    node.GET_SCHEMA()
seconds = time.perf_counter() - started
new = sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - {{"pack"}})
print(json.dumps({{"seconds": seconds, "new": new}}))
"""


def measure() -> dict:
    """The seconds to load the pack into a running ComfyUI, and the top-level modules that were imported with it."""
    comfyui = find_comfyui()
    code = PROBE.format(comfyui=str(comfyui), init=str(ROOT / "__init__.py"), root=str(ROOT))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=comfyui)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    runs = [measure() for _ in range(3)]
    print("| import of the pack inside ComfyUI | heavy modules it pulled in |")
    print("|---|---|")
    print(f"| {min(run['seconds'] for run in runs) * 1000:.0f} ms | {sorted(HEAVY & set(runs[0]['new'])) or 'none'} |")


if __name__ == "__main__":
    main()
