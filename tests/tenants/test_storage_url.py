"""STORAGE_URL is read at start-up: an option nobody knows stops it by name, and no secret is repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from tenants import storage_url
from tenants.storage_url import BucketLocation, FolderLocation, check_storage_url, parse_storage_url
from tests.config.test_env import COMPLETE

ROOT = Path(__file__).resolve().parents[2]
OSS = "https://s3.oss-cn-hangzhou-internal.aliyuncs.com"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("file:///srv/cantoria", FolderLocation(Path("/srv/cantoria"))),
        ("file:///srv/my%20voices", FolderLocation(Path("/srv/my voices"))),
        ("file://localhost/srv", FolderLocation(Path("/srv"))),
        ("s3://voices", BucketLocation("voices")),
        ("s3://voices/?region=eu-1", BucketLocation("voices", region="eu-1")),
        (
            "s3://voices?endpoint=https://s3.example&region=eu-1",
            BucketLocation("voices", endpoint="https://s3.example", region="eu-1", addressing="path"),
        ),
        (
            f"s3://voices?endpoint={OSS}/&region=oss-cn-hangzhou",
            BucketLocation("voices", endpoint=OSS, region="oss-cn-hangzhou", addressing="virtual"),
        ),
        (
            "s3://voices?endpoint=http%3A%2F%2F%5B::1%5D%3A9000&addressing=virtual",
            BucketLocation("voices", endpoint="http://[::1]:9000", addressing="virtual"),
        ),
        (
            "s3://voices?checksums=when_supported&connect_timeout_seconds=0.5&read_timeout_seconds=60&attempts=5",
            BucketLocation(
                "voices",
                checksums="when_supported",
                connect_timeout_seconds=0.5,
                read_timeout_seconds=60.0,
                attempts=5,
            ),
        ),
    ],
)
def test_what_a_url_says(url: str, location: FolderLocation | BucketLocation) -> None:
    assert parse_storage_url(url) == location
    assert check_storage_url(url) == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://voices", "must begin with file:// or s3://"),
        ("/srv/cantoria", "must begin with file:// or s3://"),
        ("s3://[voices", "is no URL"),
        ("file://srv/cantoria", "needs three slashes"),
        ("file:///", "names no folder"),
        ("file:///srv?region=eu-1", "takes no options with file://"),
        ("s3://", "names no bucket"),
        ("s3://Voices", "names no bucket"),
        ("s3://voices:9000", "names no bucket"),
        ("s3://voices/cantoria", "must not hold a path"),
        ("s3://voices?endpoint=https://s3.example#x", "must not hold a fragment"),
        ("s3://voices?adressing=path", "unknown option 'adressing'; known are addressing, attempts, checksums"),
        ("s3://voices?region=eu-1&region=eu-2", "the option region twice"),
        ("s3://voices?region=", "the option region no value"),
        ("s3://voices?region=eu 1", "malformed region"),
        ("s3://voices?endpoint=s3.example", "needs an endpoint of scheme, host"),
        ("s3://voices?endpoint=ftp://s3.example", "needs an endpoint of scheme, host"),
        ("s3://voices?endpoint=https://s3.example/voices", "needs an endpoint of scheme, host"),
        ("s3://voices?endpoint=https://s3.example:99999", "needs an endpoint of scheme, host"),
        ("s3://voices?endpoint=https://me:geheim@s3.example", "needs an endpoint of scheme, host"),
        ("s3://me:geheim@voices", "must not hold credentials"),
        ("s3://voices?addressing=auto", "needs addressing to be one of path, virtual"),
        ("s3://voices?checksums=never", "needs checksums to be one of when_required, when_supported"),
        ("s3://voices?connect_timeout_seconds=0", "needs connect_timeout_seconds between 0.1 and 60"),
        ("s3://voices?read_timeout_seconds=nan", "needs read_timeout_seconds between 0.1 and 600"),
        ("s3://voices?read_timeout_seconds=long", "needs read_timeout_seconds between 0.1 and 600"),
        ("s3://voices?attempts=0", "needs attempts between 1 and 10"),
        ("s3://voices?attempts=1000", "needs attempts between 1 and 10"),
        ("s3://voices?secret_key=geheim", "unknown option 'secret_key'"),
    ],
)
def test_what_a_url_may_not_say(url: str, complaint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="The environment variable STORAGE_URL") as caught:
        parse_storage_url(url)
    assert complaint in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_bucket_needs_the_packages_of_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_url, "find_spec", lambda name: None)
    with pytest.raises(ImproperlyConfigured, match="make STORAGE_URL=s3:// setup"):
        check_storage_url("s3://voices")
    assert check_storage_url("file:///srv")


@pytest.mark.parametrize(("url", "starts"), [("s3://voices?regoin=eu-1", False), ("s3://voices?region=eu-1", True)])
def test_start_up_stops_at_an_unknown_option_by_name(url: str, starts: bool) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from django.conf import settings; print(settings.STORAGE_URL)"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **COMPLETE, "STORAGE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode == 0) is starts, result.stderr
    assert starts or "STORAGE_URL has an unknown option 'regoin'" in result.stderr


def test_a_folder_needs_no_s3_package() -> None:
    program = (
        "import sys; sys.modules.update(boto3=None, botocore=None, storages=None)\n"
        "import django; django.setup()\n"
        "import uuid; from tenants.storage import TenantStorage\n"
        "print(TenantStorage(uuid.uuid4()).exists(TenantStorage(uuid.UUID(int=0)).prefix + 'x'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program.replace("uuid.uuid4()", "uuid.UUID(int=0)")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **COMPLETE, "CANTORIA_PROCESS": "web"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "False", result.stderr
