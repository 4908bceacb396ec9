"""A place of the user's own from which services fetch images: any S3-compatible bucket, with links that expire."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..core.errors import CredentialsMissing, ServiceError, ServiceUnreachable
from .endpoint import Endpoint
from .redaction import Secret
from .specs import DEFAULT_PROFILE, where_to_enter
from .store import look_up_credentials
from .transport import is_loopback_name

SERVICE = "image_host"
LINK_SECONDS = 2 * 3600
_UNSET = Secret("")


class ImageHost(Protocol):
    """Where an image gets a public address."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must not show in any message."""
        ...

    def put(self, data: bytes, media_type: str, extension: str) -> str:
        """Store an image file; the address to fetch it from. Raises ServiceError or ServiceUnreachable."""
        ...


@dataclass(frozen=True)
class S3Host:
    """A bucket. Without keys boto3 looks for them in its own places.

    Images are named by their content, so the same one is stored once; links hold for `link_seconds`. Nothing is deleted
    here: give the bucket a lifecycle rule for `prefix`.
    """

    bucket: str
    endpoint_url: str = ""
    region: str = ""
    access_key: Secret = _UNSET
    secret_key: Secret = _UNSET
    link_seconds: int = LINK_SECONDS
    prefix: str = "controlstack/"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return tuple(secret for secret in (self.access_key, self.secret_key) if secret)

    def put(self, data: bytes, media_type: str, extension: str) -> str:
        """Store and sign. Raises CredentialsMissing where boto3 is not installed or finds no keys."""
        try:
            import boto3  # noqa: F401  # pyright: ignore[reportMissingImports]
            import botocore.exceptions as failures  # pyright: ignore[reportMissingImports]
        except ImportError:
            advice = "Run `python -m pip install 'boto3>=1.36'` in ComfyUI's environment, or give the image's address"
            raise CredentialsMissing(f"The image host needs the package boto3. {advice}.") from None
        key = f"{self.prefix}{hashlib.sha256(data).hexdigest()}.{extension}"
        where = f"bucket '{self.bucket}'" + (f" at {self.endpoint_url}" if self.endpoint_url else "")
        try:
            client = _client(self.endpoint_url, self.region, self.access_key.reveal(), self.secret_key.reveal())
            client.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=media_type)
            return client.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=self.link_seconds
            )
        except (failures.NoCredentialsError, failures.PartialCredentialsError):
            raise CredentialsMissing(
                f"There are no keys for the image host's {where}. {where_to_enter(SERVICE)}"
            ) from None
        except (failures.EndpointConnectionError, failures.HTTPClientError) as error:
            reason = type(error).__name__
            raise ServiceUnreachable(
                f"The image host's {where} cannot be reached ({reason}). Try again: nothing was charged."
            ) from None
        except failures.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise ServiceError(f"The image host's {where} refused the image: {code}. Check its settings.") from None
        except (failures.BotoCoreError, ValueError) as error:
            reason = type(error).__name__
            raise ServiceError(f"The image host's {where} cannot be used: {reason}. Check its settings.") from None


@functools.lru_cache(maxsize=4)
def _client(endpoint_url: str, region: str, access_key: str, secret_key: str) -> Any:
    """A client for an S3-compatible service, kept: making one takes longer than a picture's way. Threads share it."""
    from boto3.session import Session  # pyright: ignore[reportMissingImports]
    from botocore.config import Config  # pyright: ignore[reportMissingImports]

    config = Config(
        signature_version="s3v4",
        connect_timeout=10,
        read_timeout=60,
        # what other makers of S3 understand: the bucket in the path, no checksums of Amazon's own
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={} if is_loopback_name(urlsplit(endpoint_url).hostname or "") else None,
    )
    return Session().client(
        "s3",
        endpoint_url=endpoint_url or None,
        region_name=region or None,
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
        config=config,
    )


def image_host_for(
    endpoint: Endpoint[Any], options: Any, file: Path, environ: Mapping[str, str] | None = None
) -> ImageHost | None:
    """The user's image host where the endpoint needs one, so that settings that nobody needs stop nothing.

    Raises CredentialsMissing like `find_image_host`.
    """
    return find_image_host(file, environ) if endpoint.needs_image_host(options) else None


def find_image_host(file: Path, environ: Mapping[str, str] | None = None) -> ImageHost | None:
    """The image host of the environment or the credentials file, or None where none is set up.

    Raises CredentialsMissing for settings that cannot work.
    """
    found = look_up_credentials(SERVICE, DEFAULT_PROFILE, file, environ)
    if found is None:
        return None
    secrets = found.secrets
    if bool(secrets["access_key"]) != bool(secrets["secret_key"]):
        half = "The image host has one of access_key and secret_key. Set both or neither"
        raise CredentialsMissing(f"{half}. {where_to_enter(SERVICE)}")
    return S3Host(
        secrets["bucket"].reveal(),
        secrets["endpoint_url"].reveal(),
        secrets["region"].reveal(),
        secrets["access_key"],
        secrets["secret_key"],
    )
