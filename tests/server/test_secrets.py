"""No key shows anywhere: remote nodes run, well and badly, in a real ComfyUI, and all that it leaves is searched."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from controlstack.api_clients.registry import ENDPOINTS
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.server.remote_graphs import NODES, remote_graph
from controlstack.tools.example_graphs import node
from controlstack.tools.fake_services import bucket, modelslab, qolaba, scenario
from controlstack.tools.fake_services.double import Double, Step
from controlstack.tools.fake_services.loopback_server import AS_USUAL, Fault, Reply, Seen
from controlstack.tools.fake_services.running import Services, double_class

FILED = {
    endpoint.service: {
        field: double_class(endpoint).variables[name] for field, name in endpoint.credential_spec.variables[0].items()
    }
    for endpoint in ENDPOINTS
}
WRONG = {service: {name: f"wrong-{service}-{name}-5Yc8Ue2O" for name in values} for service, values in FILED.items()}
PATHS = (
    "/history",
    "/queue",
    "/settings",
    "/object_info",
    "/system_stats",
    "/users",
    "/api/userdata?dir=&recurse=true",
    "/internal/logs",
    "/internal/logs/raw",
    "/controlstack/credentials",
)


def needles() -> dict[str, str]:
    """Every form in which a key must not be found, and what it is."""
    keys = [key for values in (*FILED.values(), *WRONG.values()) for key in values.values()]
    keys += [bucket.ACCESS_KEY, bucket.SECRET_KEY]
    pairs = [":".join(values.values()) for values in (FILED["scenario"], WRONG["scenario"])]
    found: dict[str, str] = {}
    for text in [*keys, *pairs]:
        found |= {text: text, quote(text, safe=""): f"{text} quoted", json.dumps(text)[1:-1]: text}
        for offset in range(3):  # base64 of a text around it, wherever it begins
            inside = base64.b64encode(b"\0" * offset + text.encode()).decode()
            found[inside[(offset * 8 + 5) // 6 : (offset + len(text)) * 8 // 6]] = f"{text} in base64"
        found[base64.b64encode(text.encode()).decode()] = f"{text} in base64"
    return found


def leaks(place: str, content: bytes) -> list[str]:
    """What of the needles the content has."""
    return [f"{what}: {place}" for form, what in needles().items() if form.encode() in content]


def leftovers(comfy: ComfyServer) -> Iterator[tuple[str, bytes]]:
    """Everything that ComfyUI wrote and tells, except the file whose purpose is to hold keys."""
    for path in PATHS:
        answer = comfy.fetch(path)
        yield path, answer.content + str(answer.headers).encode()
    for folder in ("user", "output", "temp", "input", "models"):
        for file in sorted((comfy.base / folder).rglob("*")):
            if file.is_file() and file.name != "credentials.toml":
                yield str(file), file.read_bytes()
    yield "the log", comfy.log.encode()


def echoing(double: Double, text: str, step: Step) -> Reply:
    """An answer with the key in every field that a service's words may come from."""
    told = dict.fromkeys(("message", "messege", "tip", "reason", "error", "error_data", "detail"), text)
    if step is Step.SUBMIT:
        return Reply({**told, "status": "FAILED" if double.name == "Qolaba" else "error"}, 400)
    status = {"ModelsLab": "processing", "Qolaba": "PENDING"}.get(double.name, "")
    job = {"jobId": next(iter(double.jobs), "job_0001"), "status": "in-progress", "metadata": told}
    return Reply({**told, "status": status, "job": job})


@pytest.fixture(scope="module")
def stored(remote_comfy: ComfyServer) -> Path:
    """The file of keys, written through the route as the settings page does."""
    for profile, services in (("filed", FILED), ("wrong", WRONG)):
        for service, values in services.items():
            body = {"service": service, "profile": profile, "values": values}
            answer = requests.post(f"{remote_comfy.url}/controlstack/credentials", json=body, timeout=30)
            assert answer.status_code == 200, answer.text
    (file,) = (remote_comfy.base / "user").rglob("credentials.toml")
    assert leaks("the file", file.read_bytes())
    return file


def test_no_key_is_left_anywhere_by_runs_good_and_bad(
    remote_comfy: ComfyServer, services: Services, stored: Path
) -> None:
    told: list[Any] = []
    seed = 900

    def run(kind: str, good: bool, **fields: Any) -> None:
        nonlocal seed
        seed += 1
        graph = remote_graph(kind, seed, **fields)
        graph["24"] = node("SaveImage", images=["20", 0], filename_prefix="secrets")
        result = remote_comfy.run(graph, on_event=lambda kind, _: told.append(remote_comfy.get("/queue")))
        assert result.succeeded is good, result.error
        told.append(vars(result))

    for kind, service in NODES.items():
        double = services.of(service)
        double.pending_polls = 0
        credentials = FILED[service]
        key = ":".join(credentials.values())
        header = f"{key} Bearer {key} Basic {base64.b64encode(key.encode()).decode()}"
        for profile in ("default", "filed"):
            run(kind, True, profile=profile)
        assert double.charged > 1
        run(kind, False, profile="wrong")
        for reply in (
            Reply({"status": "error", "message": header, "error": header}, 500),
            echoing(double, header, Step.SUBMIT),
            Reply(header.encode(), 502, {"Content-Type": "text/html"}),
            Reply(AS_USUAL, fault=Fault.RESET),
            Reply(b"", 302, {"Location": f"/elsewhere?key={key}"}),
        ):
            double.plan(Step.SUBMIT, reply)
            run(kind, False)
        if double.name == "Qolaba":  # its pictures lie in a bucket, behind links that open them

            def echo(seen: Seen, double: Double = double) -> Any:
                return echoing(double, f"input_value='{seen.json['image']}'", Step.SUBMIT).body

            double.plan(Step.SUBMIT, Reply(echo, 400))
            run(kind, False)
        double.plan(Step.POLL, echoing(double, header, Step.POLL))
        run(kind, True)
        double.plan(Step.RESULT, Reply(b"<!doctype html>" + header.encode()))
        run(kind, False)
    for service in ("ModelsLab", "Scenario", "Qolaba ControlNet"):
        fetch = node("ControlStackFetchJob", service=service, profile="wrong", job_id="12345")
        shown = {"1": fetch, "2": node("PreviewImage", images=["1", 0])}
        told.append(vars(remote_comfy.run(shown)))

    sent = "".join(str(seen.headers) + seen.body.decode(errors="replace") for d in services.doubles for seen in d.seen)
    assert all(key in sent for key in (modelslab.KEY, modelslab.ENTERPRISE_KEY, qolaba.KEY)), "the keys were used"
    signatures = re.findall("X-Amz-Signature=([0-9a-f]{64})", sent)
    assert signatures, "the bucket's links were used"
    found = leaks("what the client was told", json.dumps(told, default=str).encode())
    for place, content in leftovers(remote_comfy):
        found += leaks(place, content) + [f"{one}: {place}" for one in signatures if one.encode() in content]
    assert not found
    pictures = [place for place, content in leftovers(remote_comfy) if content.startswith(b"\x89PNG")]
    assert any("secrets" in place for place in pictures), "pictures with metadata were searched"


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    pair = f"{scenario.KEY}:{scenario.SECRET}".encode()
    for content in (
        modelslab.KEY.encode(),
        b'{"Authorization": "Basic ' + base64.b64encode(pair) + b'"}',
        base64.b64encode(b"x" + qolaba.KEY.encode() + b"y"),
        base64.b64encode(b'{"key": "' + modelslab.ENTERPRISE_KEY.encode() + b'", "model_id": "x"}'),
    ):
        assert leaks("here", content)
    assert not leaks("here", b"fake-modelslab-other")
