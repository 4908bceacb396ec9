"""The user's image host: an S3-compatible bucket that gives images public links, which expire."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ...core.errors import CredentialsMissing, ServiceError, ServiceUnreachable
from ..credentials.redaction import Secret
from ..credentials.specs import DEFAULT_PROFILE, IMAGE_HOST, where_to_enter
from ..credentials.store import look_up_credentials
from .transport import is_loopback_name

LINK_SECONDS = 2 * 3600
_UNSET = Secret("")


class ImageHost(Protocol):
    """Stores images where a service can download them."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The keys of the host, which must not appear in any message."""
        ...

    def put(self, data: bytes, media_type: str, extension: str) -> str:
        """Store an image file and return its public link. Raises ServiceError or ServiceUnreachable."""
        ...


@dataclass(frozen=True)
class S3Host:
    """A bucket. Without keys, boto3 looks for them in its own configuration.

    Images are named by their content, so an image is stored once. Links are valid for `link_seconds`. Stored images are
    never deleted; a lifecycle rule of the bucket for `prefix` can do that.
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
        """Both keys, or none."""
        return tuple(secret for secret in (self.access_key, self.secret_key) if secret)

    def put(self, data: bytes, media_type: str, extension: str) -> str:
        """Store the file and sign a link. Raises CredentialsMissing if boto3 is not installed or finds no keys."""
        try:
            import boto3  # noqa: F401  # pyright: ignore[reportMissingImports]
            import botocore.exceptions as failures  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise CredentialsMissing(
                "The image host needs the package boto3. Run `python -m pip install 'boto3>=1.36'` in ComfyUI's "
                "environment, or enter the image's address instead."
            ) from None
        key = f"{self.prefix}{hashlib.sha256(data).hexdigest()}.{extension}"
        bucket = f"bucket '{self.bucket}'" + (f" at {self.endpoint_url}" if self.endpoint_url else "")
        try:
            client = _client(self.endpoint_url, self.region, self.access_key.reveal(), self.secret_key.reveal())
            client.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=media_type)
            return client.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=self.link_seconds
            )
        except (failures.NoCredentialsError, failures.PartialCredentialsError):
            raise CredentialsMissing(
                f"No keys were found for the image host, {bucket}. {where_to_enter(IMAGE_HOST.service)}"
            ) from None
        except (failures.EndpointConnectionError, failures.HTTPClientError) as error:
            raise ServiceUnreachable(
                f"The image host, {bucket}, cannot be reached ({type(error).__name__}). Try again; nothing was charged."
            ) from None
        except failures.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise ServiceError(f"The image host, {bucket}, refused the image: {code}. Check its settings.") from None
        except (failures.BotoCoreError, ValueError) as error:
            raise ServiceError(
                f"The image host, {bucket}, cannot be used: {type(error).__name__}. Check its settings."
            ) from None


@functools.lru_cache(maxsize=4)
def _client(endpoint_url: str, region: str, access_key: str, secret_key: str) -> Any:
    """A client for an S3-compatible service. Cached, because making one takes longer than an upload. Thread-safe."""
    from boto3.session import Session  # pyright: ignore[reportMissingImports]
    from botocore.config import Config  # pyright: ignore[reportMissingImports]

    config = Config(
        signature_version="s3v4",
        connect_timeout=10,
        read_timeout=60,
        # Other S3 implementations expect the bucket in the path and do not know Amazon's own checksums.
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


def find_image_host(file: Path, environ: Mapping[str, str] | None = None) -> ImageHost | None:
    """The image host in the environment or the credentials file, None if none is configured.

    Raises CredentialsMissing if its settings are incomplete.
    """
    found = look_up_credentials(IMAGE_HOST, DEFAULT_PROFILE, file, environ)
    if found is None:
        return None
    secrets = found.secrets
    if bool(secrets["access_key"]) != bool(secrets["secret_key"]):
        raise CredentialsMissing(
            f"Only one of access_key and secret_key is set for the image host. Set both or neither. "
            f"{where_to_enter(IMAGE_HOST.service)}"
        )
    return S3Host(
        secrets["bucket"].reveal(),
        secrets["endpoint_url"].reveal(),
        secrets["region"].reveal(),
        secrets["access_key"],
        secrets["secret_key"],
    )
