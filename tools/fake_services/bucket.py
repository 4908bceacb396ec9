"""A bucket on loopback that speaks as much of S3 as an image host needs: a signed PUT, and a GET by a signed link."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

from .loopback_server import LoopbackServer, Reply, Seen

NAME = "controlstack-images"
REGION = "eu-test-1"
ACCESS_KEY = "FAKEACCESS4Lq9Yb2Tm7"
SECRET_KEY = "fake-s3-secret-6Zr1Xd8KpC5w"

_DATE = "%Y%m%dT%H%M%SZ"


class BucketDouble(LoopbackServer):
    """Checks every signature with its own key; `shift` seconds are added to its clock, so that links expire."""

    def __init__(self, port: int = 0) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.shift = 0.0
        self.plans: list[Reply] = []
        super().__init__(port)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of an image host that uses this bucket."""
        return {
            "CONTROLSTACK_IMAGE_HOST_BUCKET": NAME,
            "CONTROLSTACK_IMAGE_HOST_ENDPOINT": self.url,
            "CONTROLSTACK_IMAGE_HOST_REGION": REGION,
            "CONTROLSTACK_IMAGE_HOST_ACCESS_KEY": ACCESS_KEY,
            "CONTROLSTACK_IMAGE_HOST_SECRET_KEY": SECRET_KEY,
        }

    def reset(self) -> None:
        self.shift, self.plans = 0.0, []
        self.seen.clear()

    def kind(self, method: str, path: str) -> str:
        return method

    def planned(self, kind: str) -> Reply | None:
        return self.plans.pop(0) if self.plans else None

    def answer(self, seen: Seen) -> Reply:
        parts = urlsplit(seen.path)
        bucket, _, key = parts.path.lstrip("/").partition("/")
        if bucket != NAME:
            return _error(404, "NoSuchBucket")
        if seen.method == "PUT":
            if not self._header_is_good(seen):
                return _error(403, "SignatureDoesNotMatch")
            self.objects[key] = seen.body, seen.headers.get("Content-Type", "")
            return Reply(b"", headers={"ETag": f'"{hashlib.md5(seen.body).hexdigest()}"'})
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if refusal := self._link_is_bad(seen.method, parts.path, query):
            return _error(403, refusal)
        if key not in self.objects:
            return _error(404, "NoSuchKey")
        data, media_type = self.objects[key]
        return Reply(data, headers={"Content-Type": media_type})

    def _header_is_good(self, seen: Seen) -> bool:
        """Signature version 4 in the Authorization header."""
        headers = {name.lower(): value for name, value in seen.headers.items()}
        told = dict(
            part.strip().split("=", 1)
            for part in headers.get("authorization", "").removeprefix("AWS4-HMAC-SHA256 ").split(",")
            if "=" in part
        )
        if "Signature" not in told or headers.get("x-amz-content-sha256") != hashlib.sha256(seen.body).hexdigest():
            return False
        names = told["SignedHeaders"].split(";")
        lines = [f"{name}:{headers[name].strip()}\n" for name in names]
        request = [seen.method, urlsplit(seen.path).path, "", "".join(lines), told["SignedHeaders"]]
        request.append(headers["x-amz-content-sha256"])
        scope = told["Credential"].partition("/")[2]
        return told["Credential"].startswith(f"{ACCESS_KEY}/") and hmac.compare_digest(
            told["Signature"], _signature("\n".join(request), headers["x-amz-date"], scope)
        )

    def _link_is_bad(self, method: str, path: str, query: Mapping[str, str]) -> str:
        """The code of what is wrong with a presigned link, "" for a good one."""
        if "X-Amz-Signature" not in query:
            return "AccessDenied"
        rest = sorted((name, value) for name, value in query.items() if name != "X-Amz-Signature")
        canonical = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in rest)
        host = f"host:127.0.0.1:{self.server.server_port}\n"
        request = "\n".join([method, path, canonical, host, "host", "UNSIGNED-PAYLOAD"])
        scope = query["X-Amz-Credential"].partition("/")[2]
        if not hmac.compare_digest(query["X-Amz-Signature"], _signature(request, query["X-Amz-Date"], scope)):
            return "SignatureDoesNotMatch"
        utc = datetime.UTC
        signed = datetime.datetime.strptime(query["X-Amz-Date"], _DATE).replace(tzinfo=utc)
        age = (datetime.datetime.now(utc) - signed).total_seconds() + self.shift
        return "ExpiredToken" if age > int(query["X-Amz-Expires"]) else ""


def _signature(canonical_request: str, date: str, scope: str) -> str:
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical_request.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _error(status: int, code: str) -> Reply:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Reply(text.encode(), status, {"Content-Type": "application/xml"})
