"""dev.py and the workshop behind it: what it sets up, what it reuses, and the sentences it fails with."""

from __future__ import annotations

import ast
import errno
import os
import re
import runpy
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from controlstack import workshop
from controlstack.tests.comfy_server import ComfyServer, GraphRejectedError
from controlstack.workshop import browser, comfyui, environment, graph_run, places, terminal, web
from controlstack.workshop.terminal import Failure
from packaging.requirements import Requirement

SOURCES = [places.ROOT / "dev.py", *sorted((places.ROOT / "workshop").glob("*.py"))]
EMPTY_IMAGE = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 255}}
SAVE_IMAGE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "workshop"}}
BROKEN_REGEX = {"string": "a", "regex_pattern": "(", "replace": "b"}


def dev(*arguments: str, cwd: Path = places.ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(places.ROOT / "dev.py"), *arguments]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    assert result.stderr.startswith("dev.py: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def requirements(name: str) -> list[Requirement]:
    lines = (places.ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


# ---------------------------------------------------------------- the source


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_source_is_ascii_and_needs_the_standard_library_only(source: Path) -> None:
    text = source.read_bytes().decode("ascii")
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] in {*sys.stdlib_module_names, "workshop"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_an_old_python_gets_as_far_as_the_sentence_about_it(source: Path) -> None:
    ast.parse(source.read_text(encoding="ascii"), feature_version=(3, 7))


@pytest.mark.parametrize("version", [(3, 10), (3, 15)])
def test_python_out_of_range_is_refused_with_both_versions(version: tuple[int, int]) -> None:
    sentence = workshop.refuse_python(version)
    assert "needs Python 3.11 to 3.14, but this is Python {}.{}.".format(*version) in sentence


@pytest.mark.parametrize("version", [(3, 11), (3, 14)])
def test_python_in_range_is_accepted(version: tuple[int, int]) -> None:
    assert not workshop.refuse_python(version)


def test_the_pack_on_an_old_python_says_so_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    init = places.ROOT / "__init__.py"
    ast.parse(init.read_text(encoding="ascii"), feature_version=(3, 8))
    monkeypatch.setattr(sys, "version_info", (3, 10, 14, "final", 0))
    pack = runpy.run_path(str(init))  # as ComfyUI does; it logs what comfy_entrypoint raises as one line
    assert pack["WEB_DIRECTORY"] is None
    with pytest.raises(
        RuntimeError, match=r"needs Python 3\.11 or later, but ComfyUI runs on Python 3\.10\."
    ) as refusal:
        # Not by asyncio.run: the browser's tests keep a loop running in this thread.
        pack["comfy_entrypoint"]().send(None)
    assert "\n" not in str(refusal.value)


def test_the_floor_is_the_same_everywhere() -> None:
    project = tomllib.loads((places.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = "{}.{}".format(*workshop.OLDEST_PYTHON)
    pack = runpy.run_path(str(places.ROOT / "__init__.py"))
    assert pack["OLDEST_PYTHON"] == workshop.OLDEST_PYTHON
    assert project["project"]["requires-python"] == f">={oldest}"
    assert project["tool"]["basedpyright"]["pythonVersion"] == oldest
    assert project["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")


# ---------------------------------------------------------------- requirements


def test_requirements_equal_the_project_dependencies() -> None:
    project = tomllib.loads((places.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [str(each) for each in requirements("requirements.txt")] == [
        str(Requirement(each)) for each in project["dependencies"]
    ]


def test_torch_is_left_to_comfyui() -> None:
    assert not {"torch", "torchvision", "torchaudio"} & {each.name for each in requirements("requirements.txt")}


@pytest.mark.parametrize("python_version", ["3.11", "3.14"])
def test_every_requirement_is_pinned_once_and_within_its_bounds(python_version: str) -> None:
    pins = [
        each
        for each in requirements("requirements-dev.txt")
        if not each.marker or each.marker.evaluate({"python_version": python_version})
    ]
    versions = {pin.name: re.fullmatch(r"==([\w.]+)", str(pin.specifier))[1] for pin in pins}
    assert len(versions) == len(pins)
    for requirement in requirements("requirements.txt"):
        assert versions[requirement.name] in requirement.specifier


# ---------------------------------------------------------------- environments


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONTROLSTACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that passes for a ComfyUI."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "requirements.txt").write_text("aiohttp\n")
    return tmp_path / "source"


def test_environment_key_follows_each_requirement_file_but_not_line_endings(tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    keys = set()
    for contents in [(b"x\ny\n", b"z\n"), (b"x\n", b"z\n"), (b"x\ny\n", b"zz\n"), (b"x\r\ny\r\n", b"z\r\n")]:
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        keys.add(environment.environment_key(files))
    assert len(keys) == 3


def test_interrupted_build_is_built_anew_and_a_complete_one_is_reused(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = []

    def build(home: Path, files: object) -> None:
        builds.append(home)
        environment.venv_python(home).parent.mkdir(parents=True, exist_ok=True)
        environment.venv_python(home).touch()
        if len(builds) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(environment, "_build_shared", build)
    with pytest.raises(KeyboardInterrupt):
        environment.shared_environment(source)
    python = environment.shared_environment(source)
    assert environment.shared_environment(source) == python == environment.venv_python(builds[0])
    assert len(builds) == 2 and builds[0].parent == cache


def test_full_disk_is_noticed_before_the_download(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(source)._replace(free=1_000_000_000)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Failure, match=r"too full: .* has 1\.0 GB"):
        environment.shared_environment(source)


def test_two_processes_take_turns_and_a_killed_one_frees_its_lock(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time; from controlstack.workshop.places import exclusive\n"
        "with exclusive(pathlib.Path('lock')): print('held', flush=True); time.sleep(float(sys.argv[1]))"
    )

    def hold(seconds: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-c", script, seconds]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    with hold("60") as first:
        assert first.stdout and first.stdout.readline() == "held\n"
        with hold("0") as second:
            assert second.stdout and "waiting" in second.stdout.readline()
            time.sleep(0.7)
            assert second.poll() is None
            first.kill()
            assert second.wait(10) == 0


def test_clone_is_importable_from_anywhere_and_its_root_is_not_on_the_path(tmp_path: Path) -> None:
    script = "import sys, controlstack.core, torch; print(controlstack.core.__file__, *sys.path, sep='\\n')"
    command = [sys.executable, "-I", "-c", script]
    lines = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    assert Path(lines[0]) == places.ROOT / "core" / "__init__.py"
    assert str(places.ROOT) not in lines[1:]


def test_root_is_not_on_the_path_of_the_tests() -> None:
    assert places.ROOT not in [Path(entry).resolve() for entry in sys.path]


def test_unreachable_package_index_is_one_sentence() -> None:
    arguments = ["download", "controlstack-nothing", "--isolated", "--index-url", "http://127.0.0.1:9/", "--retries=1"]
    with pytest.raises(Failure, match="Testing failed: the package index cannot be reached") as failure:
        environment.pip(Path(sys.executable), *arguments, doing="Testing")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "disk is full"),
        ("ERROR: No matching distribution found for torch==9 (from versions: 1)\n", "has no torch==9 for Python"),
        ("Collecting a\nERROR: a conflicts with b\nhint: see c\n", "failed: ERROR: a conflicts with b"),
        ("", "no reason was given"),
    ],
)
def test_what_pip_printed_becomes_a_sentence(output: str, sentence: str) -> None:
    assert sentence in environment.explain("Installing", output)


def test_system_errors_are_sentences_only_when_the_person_can_act_on_them() -> None:
    assert "disk is full (x.txt)" in terminal.explain_os_error(OSError(errno.ENOSPC, "No space", "x.txt"))
    assert "may not write x.txt" in terminal.explain_os_error(OSError(errno.EACCES, "Permission denied", "x.txt"))
    assert terminal.explain_os_error(OSError(errno.EINVAL, "?")) == ""


# ---------------------------------------------------------------- links and folders


def test_link_is_made_kept_and_turned_round_but_a_real_folder_is_left(tmp_path: Path) -> None:
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "links" / "link"
    old.mkdir(), new.mkdir()
    (old / "file").touch()
    for target in (old, old, new):
        places.link_folder(link, target)
        assert link.resolve() == target
    assert (old / "file").exists()
    with pytest.raises(Failure, match="in the way"):
        places.link_folder(old, new)


def test_base_gets_comfyuis_folders_and_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clone").mkdir()
    monkeypatch.setattr(comfyui, "ROOT", tmp_path / "clone")
    comfyui.prepare_base(tmp_path / "base")
    assert (tmp_path / "base" / "models").is_dir()
    assert (tmp_path / "base" / "custom_nodes" / "controlstack").resolve() == tmp_path / "clone"


# ---------------------------------------------------------------- failures of the command


def test_wrong_comfyui_path_is_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(
        dev("serve", "--port", str(comfyui.free_port()), COMFYUI_PATH=str(tmp_path)), "COMFYUI_PATH", "no main.py"
    )


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = dev("lint", CONTROLSTACK_CACHE=str(tmp_path / "file" / "cache"), COMFYUI_PATH="")
    assert_one_sentence(result, "Nothing can be written into", "file")


def test_missing_graph_is_one_sentence() -> None:
    assert_one_sentence(dev("demo", "--graph", "nowhere.json"), "no graph nowhere.json")


def test_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert_one_sentence(dev("serve", "--port", str(port)), f"Port {port} is taken", "--port")


@pytest.mark.parametrize("port", [0, 65536])
def test_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(Failure, match="from 1 to 65535"):
        comfyui.check_port(port)


def test_arguments_after_the_dashes_are_for_pytest_alone() -> None:
    assert "only test takes arguments" in dev("lint", "--", "-x").stderr


def test_missing_browser_named_by_the_user_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM_PATH", "/nowhere/chromium")
    with pytest.raises(Failure, match="CHROMIUM_PATH is /nowhere/chromium"):
        browser.find_chromium()


def test_server_that_dies_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise SystemExit('no such model folder')")
    (tmp_path / "user").mkdir()
    server = comfyui.start_server(Path(sys.executable), tmp_path, tmp_path, comfyui.free_port())
    with pytest.raises(Failure, match=r"exit code 1; .*\n.*no such model folder"):
        server.wait_until_ready(60)
    server.stop()


# ---------------------------------------------------------------- websocket


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([0x80 | opcode, size]) + payload
    if size < 1 << 16:
        return bytes([0x80 | opcode, 126]) + struct.pack(">H", size) + payload
    return bytes([0x80 | opcode, 127]) + struct.pack(">Q", size) + payload


def answer_once(listener: socket.socket, answer: bytes) -> None:
    connection = listener.accept()[0]
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


def test_event_stream_reads_text_of_every_length_and_skips_the_rest() -> None:
    texts = ["short", "m" * 300, "l" * 70_000]
    frames = b"".join(frame(2, b"\0" * 200) + frame(9, b"") + frame(1, f'"{text}"'.encode()) for text in texts)
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_once, args=(listener, upgrade + frames + frame(8, b""))).start()
        with web.EventStream("127.0.0.1", listener.getsockname()[1], "/ws") as events:
            assert list(events) == texts


def test_event_stream_says_when_there_is_no_websocket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_once, args=(listener, b"HTTP/1.1 404 Not Found\r\n\r\n")).start()
        with pytest.raises(ConnectionError, match="404 Not Found"):
            web.EventStream("127.0.0.1", listener.getsockname()[1], "/ws")


# ---------------------------------------------------------------- the real server


@pytest.mark.server
def test_run_graph_returns_the_saved_files(comfy: ComfyServer) -> None:
    (saved,) = graph_run.run_graph(comfy.server, {"1": EMPTY_IMAGE, "2": SAVE_IMAGE})
    assert saved.is_absolute() and saved.read_bytes().startswith(b"\x89PNG")


@pytest.mark.server
def test_run_graph_gives_the_server_s_reasons_for_a_refusal(comfy: ComfyServer) -> None:
    too_wide = {**EMPTY_IMAGE, "inputs": {**EMPTY_IMAGE["inputs"], "width": -1}}
    with pytest.raises(Failure, match=r"Node 1 \(EmptyImage\): Value -1 smaller than min of 1: width\."):
        graph_run.run_graph(comfy.server, {"1": too_wide, "2": SAVE_IMAGE})


@pytest.mark.server
def test_run_graph_gives_the_sentence_of_a_node_that_fails(comfy: ComfyServer) -> None:
    graph = {
        "1": {"class_type": "RegexReplace", "inputs": BROKEN_REGEX},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(Failure, match=r"Node 1 \(RegexReplace\) failed: .*unterminated subpattern"):
        graph_run.run_graph(comfy.server, graph)


@pytest.mark.server
def test_client_tells_what_ran_what_was_cached_and_what_came_out(comfy: ComfyServer) -> None:
    graph = {"1": {**EMPTY_IMAGE, "inputs": {**EMPTY_IMAGE["inputs"], "width": 72}}, "2": SAVE_IMAGE}
    first, second = comfy.run(graph), comfy.run(graph)
    assert first.succeeded and first.executed == ["1", "2"] and not first.cached
    assert second.succeeded and set(second.cached) == {"1", "2"}
    (image,) = comfy.images(first, "2")
    assert image.size == (72, 32) and "prompt" in image.info


@pytest.mark.server
def test_client_raises_what_the_server_refuses(comfy: ComfyServer) -> None:
    with pytest.raises(GraphRejectedError) as refusal:
        comfy.run({"1": EMPTY_IMAGE})
    assert refusal.value.status == 400 and refusal.value.answer["error"]["type"] == "prompt_no_outputs"


@pytest.mark.server
def test_client_keeps_the_payload_of_an_execution_error(comfy: ComfyServer) -> None:
    regex = {"class_type": "RegexReplace", "inputs": {**BROKEN_REGEX, "string": "c"}}
    result = comfy.run({"1": regex, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}})
    assert not result.succeeded and result.error and result.error["node_id"] == "1"


@pytest.mark.server
def test_pack_is_loaded_by_folder(comfy: ComfyServer) -> None:
    assert "custom_nodes/controlstack" in comfy.log.replace("\\", "/")
    assert "IMPORT FAILED" not in comfy.log
