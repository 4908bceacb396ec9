"""Stand-ins for the services, to try the remote nodes without a key: `python dev.py fake-services`."""

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
    """How to use the stand-ins, as printed in the terminal."""
    variables = services.environment.items()
    names = ", ".join(double.name for double in services.doubles)
    controls = ", ".join(double.url + CONTROL for double in services.doubles)
    return "\n".join(
        [
            f"Stand-ins for {names} and an image host run on this machine (Ctrl-C stops them).",
            "They draw simple images. The keys are fake and work only here.",
            "",
            "Set these variables in the terminal in which you start ComfyUI. bash or zsh:",
            *(f"  export {name}={value}" for name, value in variables),
            "PowerShell:",
            *(f"  $env:{name} = '{value}'" for name, value in variables),
            "cmd:",
            *(f"  set {name}={value}" for name, value in variables),
            "",
            f"To see the requests that they received, or to plan errors: {controls}",
            """  curl -d '{"plan": {"poll": ["failed job"]}}' """ + services.modelslab.url + CONTROL,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status."""
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
                time.sleep(1)  # short, because Windows handles Ctrl-C only between two sleeps
    return 0


if __name__ == "__main__":
    sys.exit(main())
