#!/usr/bin/env python3
"""One command from a bare Python to a running pack: ``python dev.py COMMAND``.

COMMAND is demo, serve, fake-services, test, lint, docs or bench. Only the standard library is needed. It sets up, once:

``<cache>/comfyui-<version>``   a ComfyUI, unless COMFYUI_PATH names one
``<cache>/env-<hash>``          torch and everything else, shared by all clones with the same requirements
``.venv``                       this clone's small environment on top of it; imports the clone as ``controlstack``
``.comfyui``                    this clone's ComfyUI folders (models, input, output, user), with a link to the pack

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


# What pytest's -m selects for `test --fast`. tests/conftest.py sets the first two markers by itself.
FAST_TESTS = "not server and not browser and not slow"


DOCS_OPTIONS = ("check", "images", "accept-inputs")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Cleanup is the same as for Ctrl-C."""


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
    """Run the editor with the pack in the foreground."""
    check_port(port)
    with _clone_server(port) as server:
        _stay(server)


def fake_services(port: int) -> int:
    """Run the test doubles of the services in the foreground."""
    return _run_module("controlstack.tools.fake_services", "--port", str(port))


def test(fast: bool, arguments: Sequence[str]) -> int:
    """Run the tests; if `fast`, only those without a server, a browser or heavy computation."""
    selection = ["-m", FAST_TESTS] if fast else []
    # confcutdir: pytest would otherwise import the root's __init__.py as a package of tests
    return _run_module("pytest", "--confcutdir=tests", *selection, *arguments)


def lint(fast: bool) -> int:
    """Ruff's linter and formatter; unless `fast`, the type checker as well."""
    results = [_run_module("ruff", "check", "."), _run_module("ruff", "format", "--check", ".")]
    if not fast:
        results.append(_run_module("basedpyright", "--pythonpath", str(clone_environment(find_comfyui()))))
    return max(results)


def docs(arguments: Sequence[str]) -> int:
    """Write or check everything that is derived from the code; see tools/write_docs.py."""
    return _run_module("controlstack.tools.write_docs", *arguments)


def bench() -> int:
    scripts = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    if not scripts:
        raise Failure(f"There is no bench_*.py in {ROOT / 'benchmarks'}.")
    python = clone_environment(find_comfyui())
    return max(_run(python, "-I", str(script)) for script in scripts)


@contextlib.contextmanager
def _clone_server(port: int) -> Iterator[Server]:
    comfyui = find_comfyui()
    python = shared_environment(comfyui)  # not the clone's .venv: the pack must load as it does for a user
    say("Starting ComfyUI")
    with running_server(python, comfyui, BASE, port) as server:
        yield server


def _stay(server: Server) -> NoReturn:
    say(f"The editor is at {server.url} (Ctrl-C stops it)")
    server.follow_log()
    server.check_alive()
    raise AssertionError("follow_log returns when the server has ended")


def _run_module(name: str, *arguments: str) -> int:
    # -I keeps the working folder, which is the root, off sys.path
    return _run(clone_environment(find_comfyui()), "-I", "-m", name, *arguments)


def _run(python: Path, *arguments: str) -> int:
    process = subprocess.Popen([str(python), *arguments], cwd=ROOT, env=child_environment())
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Terminated):  # Ctrl-C reaches the child by itself
            process.terminate() if sys.platform == "win32" else process.send_signal(signal.SIGINT)
        process.wait(60)  # the tests stop their servers first
        raise
    if code < 0:
        raise Failure(f"{' '.join(arguments)} crashed or was killed: {signal.Signals(-code).name}.")
    return 1 if code else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    own, separator, rest = list(argv), "--", []
    if separator in own:
        own, rest = own[: own.index(separator)], own[own.index(separator) + 1 :]
    parser = argparse.ArgumentParser(prog="dev.py", description=(__doc__ or "").partition("\n")[0])
    names = "demo|serve|fake-services|test|lint|docs|bench"
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    demo_options = commands.add_parser("demo", help="set up, run the demo graph, print the path of the saved image")
    demo_options.add_argument("--serve", action="store_true", help="leave the editor open")
    demo_options.add_argument("--graph", type=Path, default=DEMO_GRAPH, help="another graph in API format")
    serve_options = commands.add_parser("serve", help="set up, then run the editor with the pack until interrupted")
    serve_options.add_argument("--port", type=int, default=8188)
    fake_options = commands.add_parser(
        "fake-services", help="run stand-ins for the services, to try the remote nodes without a key"
    )
    fake_options.add_argument("--port", type=int, default=9301, help="the first of several ports in a row")
    test_options = commands.add_parser("test", help="set up, then run every test; arguments after -- go to pytest")
    test_options.add_argument(
        "--fast",
        action="store_true",
        help="only tests without a server, a browser or heavy computation: about 3 minutes",
    )
    lint_options = commands.add_parser("lint", help="ruff and the type checker")
    lint_options.add_argument("--fast", action="store_true", help="ruff only, in seconds")
    docs_options = commands.add_parser("docs", help="write everything that is derived from the code")
    docs_options.add_argument("--check", action="store_true", help="write nothing; fail if a derived text is stale")
    docs_options.add_argument("--images", action="store_true", help="draw the derived images as well: several minutes")
    docs_options.add_argument(
        "--accept-inputs", action="store_true", help="also record added inputs in tests/server/golden_inputs.json"
    )
    commands.add_parser("bench", help="run the benchmarks and print their tables")
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
        "test": lambda: test(options.fast, options.rest),
        "lint": lambda: lint(options.fast),
        "docs": lambda: docs([f"--{name}" for name in DOCS_OPTIONS if getattr(options, name.replace("-", "_"))]),
        "bench": bench,
    }
    return commands[options.command]()


def main(argv: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows pipe cannot encode every path or log
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
