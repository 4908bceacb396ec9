#!/usr/bin/env python3
"""One command from a bare Python to a running pack: ``python dev.py demo|serve|fake-services|test|lint|bench``.

Needs the standard library only. What it sets up, and reuses the next time:

``<cache>/comfyui-<version>``   a ComfyUI, unless COMFYUI_PATH names one
``<cache>/env-<hash>``          torch and everything else, shared by all clones with the same requirements
``.venv``                       this clone's light environment on top of it; imports the clone as ``controlstack``
``.comfyui``                    this clone's ComfyUI folders (models, input, output, user), with the pack linked in

``<cache>`` is CONTROLSTACK_CACHE, or ``controlstack`` in the user's cache folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from workshop.comfyui import Server, check_port, find_comfyui, free_port, running_server
from workshop.environment import child_environment, clone_environment, shared_environment
from workshop.graph_run import load_graph, run_graph
from workshop.places import BASE, ROOT
from workshop.terminal import Failure, explain_os_error, say

DEMO_GRAPH = ROOT / "workflows" / "api" / "canny_on_this_machine.json"


class Terminated(KeyboardInterrupt):
    """Asked to end by SIGTERM: cleaned up after like a Ctrl-C."""


def demo(graph_file: Path, serve_after: bool) -> int:
    """Run a graph through a real server and print the path of the saved image as the last line."""
    graph = load_graph(graph_file)
    with _clone_server(free_port()) as server:
        say(f"Running {graph_file.name}")
        saved = run_graph(server, graph)
        if not saved:
            raise Failure(f"{graph_file} saved no image: it needs a Save Image node.")
        say(str(saved[-1]))
        if serve_after:
            _stay(server)
    return 0


def serve(port: int) -> int:
    """The editor with the pack, in the foreground."""
    check_port(port)
    with _clone_server(port) as server:
        _stay(server)


def fake_services(port: int) -> int:
    """The services' test doubles, in the foreground."""
    return _run_module("controlstack.tests.services", "--port", str(port))


def test(arguments: Sequence[str]) -> int:
    # confcutdir: pytest would otherwise import the root's __init__.py, as a package of tests
    return _run_module("pytest", "--confcutdir=tests", *arguments)


def lint(fast: bool) -> int:
    """Ruff's linter and formatter; unless `fast`, the type checker as well."""
    results = [_run_module("ruff", "check", "."), _run_module("ruff", "format", "--check", ".")]
    if not fast:
        results.append(_run_module("basedpyright", "--pythonpath", str(clone_environment(find_comfyui()))))
    return max(results)


def bench() -> int:
    scripts = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    if not scripts:
        raise Failure(f"There is no bench_*.py in {ROOT / 'benchmarks'}.")
    python = clone_environment(find_comfyui())
    return max(_run(python, "-I", str(script)) for script in scripts)


@contextlib.contextmanager
def _clone_server(port: int) -> Iterator[Server]:
    comfyui = find_comfyui()
    python = shared_environment(comfyui)  # not the clone's: the pack must load as it does for a user
    say("Starting ComfyUI")
    with running_server(python, comfyui, BASE, port) as server:
        yield server


def _stay(server: Server) -> NoReturn:
    say(f"The editor is at {server.url} (Ctrl-C stops it)")
    server.follow_log()
    server.check_alive()
    raise AssertionError("follow_log returns when the server has ended")


def _run_module(name: str, *arguments: str) -> int:
    # -I: the working folder, which is the root, must not get onto sys.path
    return _run(clone_environment(find_comfyui()), "-I", "-m", name, *arguments)


def _run(python: Path, *arguments: str) -> int:
    process = subprocess.Popen([str(python), *arguments], cwd=ROOT, env=child_environment())
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Terminated):  # a Ctrl-C has reached the child as well
            process.terminate() if sys.platform == "win32" else process.send_signal(signal.SIGINT)
        process.wait(60)  # tests have servers to stop
        raise
    if code < 0:
        raise Failure(f"{' '.join(arguments)} was ended from outside, or crashed: {signal.Signals(-code).name}.")
    return 1 if code else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    own, separator, rest = list(argv), "--", []
    if separator in own:
        own, rest = own[: own.index(separator)], own[own.index(separator) + 1 :]
    parser = argparse.ArgumentParser(prog="dev.py", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo|serve|fake-services|test|lint|bench")
    demo_options = commands.add_parser("demo", help="set up, run the demo graph, print the saved image's path")
    demo_options.add_argument("--serve", action="store_true", help="leave the editor open")
    demo_options.add_argument("--graph", type=Path, default=DEMO_GRAPH, help="another graph in API format")
    serve_options = commands.add_parser("serve", help="set up, then the editor with the pack until interrupted")
    serve_options.add_argument("--port", type=int, default=8188)
    fake_options = commands.add_parser("fake-services", help="services to try the remote nodes with, without a key")
    fake_options.add_argument("--port", type=int, default=9301, help="the first of four ports in a row")
    commands.add_parser("test", help="set up, then every test; what follows -- goes to pytest")
    lint_options = commands.add_parser("lint", help="ruff and the type checker")
    lint_options.add_argument("--fast", action="store_true", help="ruff only, in seconds")
    commands.add_parser("bench", help="the benchmarks, as tables")
    options = parser.parse_args(own)
    if rest and options.command != "test":
        parser.error("only test takes arguments after --")
    options.rest = rest
    return options


def run_command(options: argparse.Namespace) -> int:
    """Run the command that `options` name; the exit status."""
    commands: Mapping[str, Callable[[], int]] = {
        "demo": lambda: demo(options.graph, options.serve),
        "serve": lambda: serve(options.port),
        "fake-services": lambda: fake_services(options.port),
        "test": lambda: test(options.rest),
        "lint": lambda: lint(options.fast),
        "bench": bench,
    }
    return commands[options.command]()


def main(argv: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows pipe may lack a character of a path or a log
            stream.reconfigure(errors="replace")
    options = parse(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return run_command(options)
    except Failure as failure:
        print(f"dev.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except OSError as error:
        sentence = explain_os_error(error)
        if not sentence:
            raise
        print(f"dev.py: {sentence}", file=sys.stderr)
        return 1


def _terminate(*_: object) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
