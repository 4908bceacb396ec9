"""HTTP routes for the browser and the services: listing which keys are set, storing a key, and webhooks.

A key can be stored but never read. It is accepted only from a browser on the machine that runs ComfyUI: over a network
it would be sent unencrypted, and everybody who reaches the port could store a key.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from ..api_clients.credentials.specs import CredentialSpec, in_terminal
from ..api_clients.credentials.store import (
    ProfileStatus,
    credentials_file,
    list_profiles,
    remove_credentials,
    store_credentials,
)
from ..api_clients.http.messages import is_object
from ..api_clients.jobs.webhook import ROUTE as WEBHOOK
from ..api_clients.jobs.webhook import notify
from ..api_clients.registry import SPECS
from ..core.errors import CredentialsMissing
from .comfy import PromptServer, user_folder

CREDENTIALS = "/controlstack/credentials"
_MAX_BYTES = 16_384


def add_routes() -> None:
    """Add the routes to ComfyUI's server, which also serves them below /api."""
    routes = PromptServer.instance.routes
    routes.get(CREDENTIALS)(list_credentials)
    routes.post(CREDENTIALS)(store_key)
    routes.post(WEBHOOK + "/{token}")(receive_webhook)


async def list_credentials(request: web.Request) -> web.Response:
    """All services with their fields, and all profiles: whether they are set and from where, but never a value."""
    try:
        profiles = await asyncio.to_thread(list_profiles, SPECS, credentials_file(user_folder()))
    except CredentialsMissing as unreadable:
        return web.json_response({"error": str(unreadable)}, status=500)
    services = [
        {
            "service": service,
            "title": spec.title,
            "fields": [{"name": name, "optional": name in spec.optional} for name in spec.fields],
            "profiles": [_profile_json(status) for status in profiles if status.service == service],
        }
        for service, spec in SPECS.items()
    ]
    return web.json_response({"services": services})


async def store_key(request: web.Request) -> web.Response:
    """Store the profile in `{"service", "profile", "values": {field: text}}`; without values, remove it."""
    if reason := refusal(request.remote or "", request.headers):
        return web.json_response({"error": reason}, status=403)
    try:
        spec, profile, values = _parse(await _small_json(request))
        file = credentials_file(user_folder())
        if values:
            await asyncio.to_thread(store_credentials, spec, profile, values, file)
        else:
            await asyncio.to_thread(remove_credentials, spec, profile, file)
    except (CredentialsMissing, ValueError, OSError) as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response({"stored": bool(values)})


async def receive_webhook(request: web.Request) -> web.Response:
    """Notify the job with this token. The answer is the same for every token, and the body is not read."""
    notify(request.match_info["token"])
    return web.Response(status=204)


def refusal(peer: str, headers: Mapping[str, str]) -> str:
    """Why keys are not accepted from this caller, "" if they are.

    The `Host` check stops pages whose host name points to this machine. The other checks stop pages of other sites,
    because ComfyUI's own check is off if it runs with --enable-cors-header.
    """
    host, origin = headers.get("Host", ""), headers.get("Origin", "")
    if not (_is_loopback(peer) and _is_loopback(urlsplit(f"//{host}").hostname or "")):
        return (
            "Keys are accepted only from a browser on the machine that runs ComfyUI, at http://127.0.0.1 or localhost. "
            f"You can also run {in_terminal('set SERVICE')} there."
        )
    if origin and urlsplit(origin).netloc.lower() != host.lower():
        return "Keys are not accepted from pages of other sites."
    if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return "Keys are not accepted from pages of other sites."
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return "Keys are accepted only as application/json."
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


async def _small_json(request: web.Request) -> Any:
    if (request.content_length or _MAX_BYTES) >= _MAX_BYTES:
        raise ValueError(f"The request is too long for a key: it must have less than {_MAX_BYTES} bytes.")
    try:
        return json.loads(await request.read())
    except ValueError:
        raise ValueError("The request is not JSON.") from None  # the original message may contain a part of the key


def _parse(value: Any) -> tuple[CredentialSpec, str, dict[str, str]]:
    form = 'Send {"service": ..., "profile": ..., "values": {...}}, with strings as values.'
    if not is_object(value):
        raise ValueError(form)
    service, profile, values = value.get("service"), value.get("profile"), value.get("values") or {}
    if not isinstance(service, str) or not isinstance(profile, str) or not is_object(values):
        raise ValueError(form)
    if service not in SPECS:
        raise ValueError(f"There is no service with that name. The services are {', '.join(SPECS)}.")
    if not all(name in SPECS[service].fields and isinstance(text, str) for name, text in values.items()):
        raise ValueError(f"The fields of {service} are {', '.join(SPECS[service].fields)}, with strings as values.")
    return SPECS[service], profile, {name: text.strip() for name, text in values.items()}


def _profile_json(status: ProfileStatus) -> dict[str, Any]:
    from_environment = status.origin == "the environment"
    return {
        "profile": status.profile,
        "set": status.is_set,
        "from": ("environment" if from_environment else "file") if status.is_set else "",
        "problem": "" if status.is_set else status.origin,
    }
