"""What the browser and the services may ask of the pack: which keys are set, storing one, and ringing a bell.

A key goes in and never out. It is taken only from a browser on the machine that runs ComfyUI: over a network it would
travel readable, and everybody who reaches the port could put in keys of their own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from ..api_clients.specs import SPECS, in_terminal
from ..api_clients.store import (
    ProfileStatus,
    credentials_file,
    list_profiles,
    remove_credentials,
    store_credentials,
)
from ..api_clients.webhook import ROUTE as WEBHOOK
from ..api_clients.webhook import ring
from ..core.errors import CredentialsMissing
from .comfy import PromptServer, user_folder

CREDENTIALS = "/controlstack/credentials"
_MOST_BYTES = 16_384


def add_routes() -> None:
    """Tell ComfyUI's server about them; it serves each below /api, too."""
    routes = PromptServer.instance.routes
    routes.get(CREDENTIALS)(tell_credentials)
    routes.post(CREDENTIALS)(take_credentials)
    routes.post(WEBHOOK + "/{token}")(take_webhook)


async def tell_credentials(request: web.Request) -> web.Response:
    """Every service with its fields, and every profile: set or not, and from where; never a value."""
    try:
        profiles = await asyncio.to_thread(list_profiles, credentials_file(user_folder()))
    except CredentialsMissing as unreadable:
        return web.json_response({"error": str(unreadable)}, status=500)
    services = [
        {
            "service": service,
            "title": spec.title,
            "fields": [{"name": name, "optional": name in spec.optional} for name in spec.fields],
            "profiles": [_told(status) for status in profiles if status.service == service],
        }
        for service, spec in SPECS.items()
    ]
    return web.json_response({"services": services})


async def take_credentials(request: web.Request) -> web.Response:
    """`{"service", "profile", "values": {field: text}}` stores a profile; without values it is removed."""
    if reason := refusal(request.remote or "", request.headers):
        return web.json_response({"error": reason}, status=403)
    try:
        service, profile, values = _parse(await _small_json(request))
        file = credentials_file(user_folder())
        if values:
            await asyncio.to_thread(store_credentials, service, profile, values, file)
        else:
            await asyncio.to_thread(remove_credentials, service, profile, file)
    except (CredentialsMissing, ValueError, OSError) as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response({"stored": bool(values)})


async def take_webhook(request: web.Request) -> web.Response:
    """The answer is the same for every token, and the body is not read."""
    ring(request.match_info["token"])
    return web.Response(status=204)


def refusal(peer: str, headers: Mapping[str, str]) -> str:
    """Why keys are not taken from this caller, or "".

    The `Host` check stops pages that let their own name point to this machine, the others stop pages of other places:
    ComfyUI's own check is off when it runs with --enable-cors-header.
    """
    host, origin = headers.get("Host", ""), headers.get("Origin", "")
    if not (_is_loopback(peer) and _is_loopback(urlsplit(f"//{host}").hostname or "")):
        where = "from a browser on the machine that runs ComfyUI, opened as http://127.0.0.1 or localhost"
        return f"Keys are taken only {where}. Or run {in_terminal('set SERVICE')} there."
    if origin and urlsplit(origin).netloc.lower() != host.lower():
        return "Keys are not taken from pages of other places."
    if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return "Keys are not taken from pages of other places."
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return "Keys are taken as application/json only."
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


async def _small_json(request: web.Request) -> Any:
    if (request.content_length or _MOST_BYTES) >= _MOST_BYTES:
        raise ValueError("That is too long for a key.")
    try:
        return json.loads(await request.read())
    except ValueError:
        raise ValueError("The request is not JSON.") from None  # the text of the error may show a part of the key


def _parse(value: Any) -> tuple[str, str, dict[str, str]]:
    form = 'Send {"service": ..., "profile": ..., "values": {...}} with texts.'
    if not isinstance(value, dict):
        raise ValueError(form)
    service, profile, values = value.get("service"), value.get("profile"), value.get("values") or {}
    if not isinstance(service, str) or not isinstance(profile, str) or not isinstance(values, dict):
        raise ValueError(form)
    if service not in SPECS:
        raise ValueError(f"There is no service of that name. It must be one of {', '.join(SPECS)}.")
    if not all(name in SPECS[service].fields and isinstance(text, str) for name, text in values.items()):
        raise ValueError(f"{service} has {', '.join(SPECS[service].fields)}.")
    return service, profile, {name: text.strip() for name, text in values.items()}


def _told(status: ProfileStatus) -> dict[str, Any]:
    from_environment = status.origin == "the environment"
    return {
        "profile": status.profile,
        "set": status.is_set,
        "from": ("environment" if from_environment else "file") if status.is_set else "",
        "problem": "" if status.is_set else status.origin,
    }
