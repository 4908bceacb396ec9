"""Runs a graph in API format on a server, shows its progress, and finds the images it saved."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .comfyui import Server
from .terminal import Failure, Progress
from .web import EventStream, call

Graph = Mapping[str, Mapping[str, Any]]


def load_graph(path: Path) -> Graph:
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failure(f"There is no graph {path}.") from None
    except ValueError as error:
        raise Failure(f"{path} is not JSON: {error}.") from error
    return graph


def run_graph(server: Server, graph: Graph) -> list[Path]:
    """Run `graph` and return the image files it saved, oldest first. Raises Failure if the graph does not succeed."""
    client = uuid.uuid4().hex
    try:
        with EventStream("127.0.0.1", server.port, f"/ws?clientId={client}", server.check_alive) as events:
            status, answer = call(server.url + "/prompt", {"prompt": graph, "client_id": client})
            if status != 200 or answer.get("node_errors"):
                raise Failure(explain_rejection(answer))
            _follow(events, answer["prompt_id"], graph)
        history = call(f"{server.url}/history/{answer['prompt_id']}")[1]
    except (OSError, EOFError) as error:
        raise _lost(server) from error
    outputs = history[answer["prompt_id"]]["outputs"].values()
    images = [image for output in outputs for image in output.get("images", ()) if image["type"] == "output"]
    return [server.log.parent / "output" / image["subfolder"] / image["filename"] for image in images]


def _follow(events: EventStream, prompt_id: str, graph: Graph) -> None:
    progress, running = Progress(), ""
    for event in events:
        kind, data = event["type"], event.get("data") or {}
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "executing" and data["node"] is None:
            progress.end()
            return
        if kind == "executing":
            running = graph.get(data["node"], {}).get("class_type", data["node"])
            progress.show(f"  {running}")
        elif kind == "progress":
            progress.show(f"  {running}: step {data['value']:.0f}/{data['max']:.0f}")
        elif kind == "execution_error":
            progress.end()
            raise Failure(f"Node {data['node_id']} ({data['node_type']}) failed: {data['exception_message'].strip()}")
        elif kind == "execution_interrupted":
            progress.end()
            raise Failure("The run was interrupted.")
    raise EOFError


def _lost(server: Server) -> Failure:
    time.sleep(0.5)  # it takes a moment until a killed process is reported as ended
    server.check_alive()
    return Failure(
        f"ComfyUI closed the connection before the graph was done; the end of {server.log}:\n{server.log_end()}"
    )


def explain_rejection(answer: Mapping[str, Any]) -> str:
    """The reasons in ComfyUI's answer when it refuses a graph, one sentence each."""
    error = answer.get("error") or {"message": "The graph has errors"}
    sentences = [error if isinstance(error, str) else error["message"].rstrip(".:") + "."]
    for node_id, node in (answer.get("node_errors") or {}).items():
        for problem in node["errors"]:
            details = f": {problem['details']}" if problem.get("details") else ""
            sentences.append(f"Node {node_id} ({node['class_type']}): {problem['message']}{details}.")
    return "\n  ".join(["ComfyUI does not run the graph: " + sentences[0], *sentences[1:]])
