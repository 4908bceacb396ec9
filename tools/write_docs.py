"""Write everything that is derived from the code: ``python dev.py docs``.

Texts, in seconds: help pages and locale, the tables of the README and of docs/local.md, the example graphs with their
API twins, the index of the decisions, and the image of an example graph that has none. With ``--images`` also, in
minutes: sample images, the contact sheet, the images of the example graphs, the icon and the banner. The ComfyUI server
that knows the nodes is started and stopped here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..workshop.comfyui import find_comfyui, free_port, running_server
from ..workshop.environment import shared_environment
from ..workshop.web import call
from . import decision_index, draw_brand, draw_contact_sheet, draw_samples, local_cells
from .example_graphs import EXAMPLE_GRAPHS, ExampleGraph
from .fake_services.running import running_services
from .golden_inputs import GOLDEN, golden_text, with_additions
from .write_reference import reference_files
from .write_workflows import WORKFLOWS, graph_files, save_image

ROOT = Path(__file__).resolve().parent.parent
# Folders, with the suffix of the files there, that hold derived files only: others are removed.
DERIVED_ONLY = ((ROOT / "web" / "docs", ".md"), (WORKFLOWS, ".json"), (WORKFLOWS, ".jpg"), (WORKFLOWS / "api", ".json"))


def derived_texts(object_info: Mapping[str, Any]) -> dict[Path, str]:
    """Every derived text file with its content. `object_info` is the answer of the server's /object_info."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    texts = reference_files(object_info, readme)
    texts[local_cells.PAGE] = local_cells.with_tables(local_cells.PAGE.read_text(encoding="utf-8"))
    texts |= graph_files(object_info)
    texts[decision_index.INDEX] = decision_index.index_page(decision_index.INDEX.parent)
    return texts


def stale_files(texts: Mapping[Path, str]) -> list[Path]:
    """Derived files that are missing, or whose content is not what the code gives today."""
    return [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def orphans(texts: Iterable[Path]) -> list[Path]:
    """Files in the derived folders that nothing derives any more."""
    wanted = {*texts, *(WORKFLOWS / f"{graph.title}.jpg" for graph in EXAMPLE_GRAPHS)}
    present = (path for folder, suffix in DERIVED_ONLY for path in sorted(folder.glob(f"*{suffix}")))
    return [path for path in present if path not in wanted]


@contextlib.contextmanager
def documentation_server(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a ComfyUI with the pack and nothing else, on folders of its own."""
    comfyui = find_comfyui()
    with (
        tempfile.TemporaryDirectory(prefix="controlstack-docs-") as base,
        running_server(
            shared_environment(comfyui), comfyui, Path(base), free_port(), environment=environment
        ) as server,
    ):
        yield server.url


def write_texts(object_info: Mapping[str, Any]) -> None:
    """Write what is stale and remove what nothing derives any more; a line for each."""
    texts = derived_texts(object_info)
    for path in stale_files(texts):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path], encoding="utf-8", newline="\n")
        print(f"wrote {_shown(path)}")
    for path in orphans(texts):
        path.unlink()
        print(f"removed {_shown(path)}")


def check_texts(object_info: Mapping[str, Any]) -> int:
    """Print what `write_texts` would change; 1 if there is anything."""
    texts = derived_texts(object_info)
    stale = [*stale_files(texts), *orphans(texts)]
    for path in stale:
        print(f"stale: {_shown(path)}")
    print("Run python dev.py docs." if stale else "Every derived text is up to date.")
    return 1 if stale else 0


def write_images(server: str) -> None:
    """Draw every derived image; the contact sheet first, because an example shows it."""
    draw_brand.main()
    draw_samples.main()
    draw_contact_sheet.main()
    draw_examples(server, EXAMPLE_GRAPHS)


def without_image() -> list[ExampleGraph]:
    """The example graphs that were never drawn."""
    return [graph for graph in EXAMPLE_GRAPHS if not (WORKFLOWS / f"{graph.title}.jpg").is_file()]


def draw_examples(server: str, graphs: Iterable[ExampleGraph]) -> None:
    """Run these example graphs and save their images."""
    for graph in graphs:
        print(f"drew {_shown(save_image(server, graph))}")


def accept_inputs(object_info: Mapping[str, Any]) -> int:
    """Record nodes, inputs and outputs that were added in the golden file; 1 if something recorded moved or went."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    try:
        now = with_additions(golden, object_info)
    except ValueError as broken:
        print(broken, file=sys.stderr)
        return 1
    GOLDEN.write_text(golden_text(now), encoding="utf-8", newline="\n")
    return 0


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="dev.py docs", description="Write everything that is derived from the code.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="write nothing; fail if a derived text is stale")
    mode.add_argument("--images", action="store_true", help="draw the derived images as well, which takes minutes")
    mode.add_argument(
        "--accept-inputs",
        action="store_true",
        help="also record added nodes, inputs and outputs in tests/server/golden_inputs.json",
    )
    options = parser.parse_args(argv)
    with running_services() as services, documentation_server(services.environment) as server:
        _, object_info = call(f"{server}/object_info")
        if options.check:
            return check_texts(object_info)
        if options.accept_inputs and accept_inputs(object_info):
            return 1
        write_texts(object_info)
        write_images(server) if options.images else draw_examples(server, without_image())
    return 0


if __name__ == "__main__":
    sys.exit(main())
