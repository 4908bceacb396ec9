"""The doubles for anyone who wants to try the remote nodes without a key: `python dev.py fake-services`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence

from .double import CONTROL
from .running import Services, double_classes

PORT = 9301
_LATENCY = 4.0


def instructions(services: Services) -> str:
    """What to do with them."""
    variables = services.environment.items()
    names = ", ".join(double.name for double in services.doubles)
    controls = ", ".join(double.url + CONTROL for double in services.doubles)
    return "\n".join(
        [
            f"{names} are played on this machine, with a bucket for pictures (Ctrl-C stops).",
            "Their pictures are drawings in each one's colour; the keys are fake and open nothing else.",
            "",
            "Set this where ComfyUI is started, then start it. In bash, zsh:",
            *(f"  export {name}={value}" for name, value in variables),
            "In Windows' PowerShell:",
            *(f"  $env:{name} = '{value}'" for name, value in variables),
            "In Windows' cmd:",
            *(f"  set {name}={value}" for name, value in variables),
            "",
            f"To see what they were asked, or to upset them: {controls}",
            """  curl -d '{"plan": {"poll": ["failed job"]}}' """ + services.modelslab.url + CONTROL,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="dev.py fake-services", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--port", type=int, default=PORT, help="the first of several ports in a row")
    parser.add_argument("--latency", type=float, default=_LATENCY, help="seconds that a job takes")
    options = parser.parse_args(argv)
    try:
        services = Services(options.port)
    except (OSError, OverflowError) as error:
        span = f"Ports {options.port} to {options.port + len(double_classes())}"
        reason = getattr(error, "strerror", None) or str(error)
        print(f"{span} are not all free: {reason}. Choose others with --port.", file=sys.stderr)
        return 1
    with contextlib.closing(services):
        for double in services.doubles:
            double.latency = options.latency
        print(instructions(services), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)  # shorter than for ever: Windows hears a Ctrl-C between two sleeps only
    return 0


if __name__ == "__main__":
    sys.exit(main())
