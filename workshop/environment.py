"""Python environments: one shared by all clones with the same requirements, and a light one in each clone."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .places import ROOT, cache_root, exclusive, link_folder
from .terminal import Failure, Progress, say

ENVIRONMENT_GB = 8 if sys.platform == "linux" else 4  # on Linux, torch includes CUDA

CLONE_MODULE = '''"""Written by dev.py: the shared environment, and this clone as the package "controlstack"."""
import importlib.util, os, site, sys

ROOT, SHARED = {root}, {shared}


class CloneFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "controlstack":
            init = os.path.join(ROOT, "__init__.py")
            return importlib.util.spec_from_file_location(name, init, submodule_search_locations=[ROOT])


site.addsitedir(SHARED)
sys.meta_path.append(CloneFinder)
'''


def child_environment() -> dict[str, str]:
    """The variables for a child process: this one's, without PYTHONPATH and without telemetry."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


def venv_python(home: Path) -> Path:
    return home / "Scripts" / "python.exe" if sys.platform == "win32" else home / "bin" / "python"


def site_packages(home: Path) -> Path:
    if sys.platform == "win32":
        return home / "Lib" / "site-packages"
    return home / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"


def create_venv(home: Path, *options: str) -> Path:
    command = [sys.executable, "-I", "-m", "venv", *options, str(home)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", env=child_environment())
    output = result.stdout + result.stderr
    if result.returncode and ("ensurepip" in output or "No module named venv" in output):
        raise Failure("This Python cannot create environments. Install its venv package (apt install python3-venv).")
    if result.returncode:
        raise Failure(explain(f"Making the environment {home}", output))
    return venv_python(home)


def pip(python: Path, *arguments: str, doing: str) -> None:
    """Run pip and show its progress in one line. Raises Failure with the reason in one sentence."""
    command = [str(python), "-I", "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    progress, output = Progress(), []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=child_environment()
    ) as process:
        try:
            for line in process.stdout or ():
                output.append(line)
                if re.match(r"\s*(Collecting|Downloading|Using cached|Building|Installing|WARNING: Retrying)", line):
                    progress.show(f"  {line.strip()[:110]}")
        except BaseException:
            process.terminate()
            raise
    progress.end()
    if process.returncode:
        raise Failure(explain(doing, "".join(output)))


def explain(doing: str, output: str) -> str:
    """The reason why pip or venv failed, as one sentence, from its output."""
    if re.search(r"No space left|not enough space|Disk quota", output):
        return f"{doing} failed: the disk is full; {ENVIRONMENT_GB} GB are needed in {cache_root()}."
    if re.search(r"Retrying \(|ConnectionError|name resolution|Network is unreachable|ProxyError|SSLError", output):
        return f"{doing} failed: the package index cannot be reached; check the network or the proxy, then run again."
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return f"{doing} failed: the package index has no {missing[1]} for {system}."
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no reason was given"]
    errors = [line for line in lines if line.lower().startswith("error")]
    return f"{doing} failed: {(errors or lines)[-1]}"


def requirement_files(comfyui: Path) -> list[Path]:
    return [ROOT / "requirements.txt", ROOT / "requirements-dev.txt", comfyui / "requirements.txt"]


def environment_key(requirements: Sequence[Path]) -> str:
    """A name that is different for different requirements, Python versions and kinds of machine."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {sys.platform} {platform.machine()}".encode())
    for file in requirements:
        digest.update(b"\0" + file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


def shared_environment(comfyui: Path) -> Path:
    """The Python that has torch and the requirements of ComfyUI and of the pack. It is built if missing.

    An environment without its marker file is left over from an interrupted build, and is built again.
    """
    requirements = requirement_files(comfyui)
    home = cache_root() / f"env-{environment_key(requirements)}"
    python, marker = venv_python(home), home / "complete"
    if marker.is_file() and python.exists():
        return python
    with exclusive(home.with_name(home.name + ".lock")):
        if not (marker.is_file() and python.exists()):
            _build_shared(home, requirements)
            marker.touch()
    return python


def _build_shared(home: Path, requirements: Sequence[Path]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    free = shutil.disk_usage(home.parent).free / 1e9
    if free < ENVIRONMENT_GB:
        raise Failure(f"The disk is too full: {home.parent} has {free:.1f} GB, setup needs {ENVIRONMENT_GB} GB.")
    say(f"Building the environment {home} (only once; this takes several minutes)")
    sources = [part for file in requirements for part in ("-r", str(file))]
    pip(create_venv(home), "install", *sources, doing="Installing the packages")


def clone_environment(comfyui: Path) -> Path:
    """The Python of this clone's `.venv`: the shared environment, with the clone importable as `controlstack`.

    The root of the clone stays off `sys.path`, where its `nodes` would shadow ComfyUI's.
    """
    shared, home = shared_environment(comfyui), ROOT / ".venv"
    python, marker = venv_python(home), home / "controlstack.json"
    state = json.dumps({"root": str(ROOT), "shared": str(shared), "comfyui": str(comfyui)})
    with exclusive(ROOT / ".venv.lock"):
        if marker.is_file() and marker.read_text(encoding="utf-8") == state and python.exists():
            return python
        if home.exists() and not marker.is_file():
            raise Failure(f"{home} was not made by dev.py. Move it elsewhere.")
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(exist_ok=True)
        marker.write_text("unfinished", encoding="utf-8")
        create_venv(home, "--without-pip")
        module = CLONE_MODULE.format(root=ascii(str(ROOT)), shared=ascii(str(site_packages(shared.parent.parent))))
        (site_packages(home) / "controlstack_clone.py").write_text(module, encoding="utf-8")
        (site_packages(home) / "controlstack_clone.pth").write_text("import controlstack_clone\n", encoding="utf-8")
        link_folder(home / "typing" / "controlstack", ROOT)  # the type checker does not run import hooks
        link_folder(home / "typing" / "comfyui", comfyui)
        marker.write_text(state, encoding="utf-8")
    return python
