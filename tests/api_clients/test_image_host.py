"""Pictures get an address in the user's bucket: real boto3 against one on loopback that checks signatures."""

from __future__ import annotations

import builtins
import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from controlstack.api_clients.credentials.redaction import Secret
from controlstack.api_clients.credentials.specs import IMAGE_HOST
from controlstack.api_clients.credentials.store import store_credentials
from controlstack.api_clients.http.image_host import S3Host, find_image_host
from controlstack.core.errors import ControlStackError, CredentialsMissing, ServiceError, ServiceUnreachable
from controlstack.tests.api_clients.scripted_service import image_file, loopback_only
from controlstack.tools.fake_services.bucket import ACCESS_KEY, NAME, REGION, SECRET_KEY, BucketDouble
from controlstack.tools.fake_services.loopback_server import Fault, Reply

PNG = image_file()
BOTO_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BucketDouble]:
    for name in BOTO_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    running = BucketDouble()
    with loopback_only():
        yield running
    running.close()


@pytest.fixture
def host(bucket: BucketDouble) -> S3Host:
    return S3Host(NAME, bucket.url, REGION, Secret(ACCESS_KEY), Secret(SECRET_KEY))


def fails(error: type[ControlStackError], host: S3Host) -> str:
    with pytest.raises(error) as caught:
        host.put(PNG, "image/png", "png")
    assert ACCESS_KEY not in str(caught.value) and SECRET_KEY not in str(caught.value)
    return str(caught.value)


def test_a_picture_is_stored_under_its_content_and_its_link_opens_it_without_a_key(
    host: S3Host, bucket: BucketDouble
) -> None:
    link = host.put(PNG, "image/png", "png")
    (put,) = bucket.seen
    key = f"controlstack/{hashlib.sha256(PNG).hexdigest()}.png"
    assert put.path == f"/{NAME}/{key}" and bucket.objects == {key: (PNG, "image/png")}
    assert link.startswith(f"{bucket.url}/{NAME}/{key}?") and SECRET_KEY not in link
    answer = requests.get(link, timeout=10)
    assert (answer.content, answer.headers["Content-Type"]) == (PNG, "image/png")
    assert requests.get(link.partition("?")[0], timeout=10).status_code == 403
    assert requests.get(link.replace("Expires=7200", "Expires=9999999"), timeout=10).status_code == 403


def test_a_link_ends_after_two_hours(host: S3Host, bucket: BucketDouble) -> None:
    link = host.put(PNG, "image/png", "png")
    bucket.shift = 7100
    assert requests.get(link, timeout=10).status_code == 200
    bucket.shift = 7300
    answer = requests.get(link, timeout=10)
    assert answer.status_code == 403 and "ExpiredToken" in answer.text


def test_the_same_picture_is_stored_once(host: S3Host, bucket: BucketDouble) -> None:
    first, second = host.put(PNG, "image/png", "png"), host.put(PNG, "image/png", "png")
    assert first.partition("?")[0] == second.partition("?")[0] and len(bucket.objects) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secret_key": Secret("another-secret-0123456789")}, "SignatureDoesNotMatch"),
        ({"bucket": "not-there"}, "NoSuchBucket"),
        ({"bucket": "No bucket has such a name!"}, "ParamValidationError"),
    ],
    ids=["wrong key", "no such bucket", "impossible name"],
)
def test_what_the_bucket_refuses_is_a_sentence(host: S3Host, change: dict[str, Any], words: str) -> None:
    message = fails(ServiceError, replace(host, **change))
    assert words in message and "Check its settings" in message and f"'{change.get('bucket', NAME)}'" in message


def test_a_bucket_out_of_reach_is_a_sentence(host: S3Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    message = fails(ServiceUnreachable, replace(host, endpoint_url=f"http://127.0.0.1:{port}"))
    assert "cannot be reached" in message and "nothing was charged" in message


def test_a_connection_that_breaks_is_a_sentence_and_a_passing_failure_is_repeated(
    host: S3Host, bucket: BucketDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.plans = [Reply(b"", fault=Fault.RESET)] * 9
    assert "cannot be reached" in fails(ServiceUnreachable, host)
    bucket.plans = []
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    bucket.plans = [Reply(b"<Error><Code>SlowDown</Code></Error>", 503)]
    assert replace(host, region="eu-test-2").put(PNG, "image/png", "png")


def test_without_keys_anywhere_it_says_so(host: S3Host) -> None:
    assert "No keys were found" in fails(
        CredentialsMissing, replace(host, access_key=Secret(""), secret_key=Secret(""))
    )


def test_without_boto3_it_says_how_to_get_it(host: S3Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] in ("boto3", "botocore"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'boto3" in fails(CredentialsMissing, host)


def test_the_environment_or_the_file_names_the_bucket(bucket: BucketDouble, tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    assert find_image_host(file, {}) is None
    found = find_image_host(file, bucket.variables)
    assert found is not None and requests.get(found.put(PNG, "image/png", "png"), timeout=10).content == PNG
    values = {"bucket": NAME, "endpoint_url": bucket.url, "region": REGION}
    store_credentials(IMAGE_HOST, "default", {**values, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}, file)
    found = find_image_host(file, {})
    assert found is not None and requests.get(found.put(PNG, "image/png", "png"), timeout=10).content == PNG
    store_credentials(IMAGE_HOST, "default", {**values, "access_key": ACCESS_KEY}, file)
    with pytest.raises(CredentialsMissing, match="Set both or neither"):
        find_image_host(file, {})
