"""What STORAGE_URL says, read and checked at start-up. Plain Python: the settings import it.

    file:///srv/cantoria
    s3://bucket?endpoint=https://s3.example&region=eu-1

Credentials are never part of it: they come the way boto3 looks for them (AWS_ACCESS_KEY_ID and its family, shared
files, the role of the machine).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

Addressing = Literal["path", "virtual"]
Checksums = Literal["when_required", "when_supported"]

_ADDRESSING: Final = ("path", "virtual")
_CHECKSUMS: Final = ("when_required", "when_supported")
_OPTIONS: Final = (
    "addressing",
    "attempts",
    "checksums",
    "connect_timeout_seconds",
    "endpoint",
    "read_timeout_seconds",
    "region",
)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OSS_HOSTS: Final = ".aliyuncs.com"  # refuses the bucket in the path


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """A folder of this machine, or one that all machines mount."""

    root: Path


@dataclass(frozen=True, slots=True)
class BucketLocation:
    """A bucket of a service that speaks S3."""

    bucket: str
    endpoint: str | None = None  # scheme, host and port; None: Amazon's own
    region: str | None = None
    addressing: Addressing = "virtual"  # the bucket's name in the host, or first in the path
    checksums: Checksums = "when_required"  # OSS and rclone refuse what boto3 adds of its own accord
    connect_timeout_seconds: float = 3.0
    read_timeout_seconds: float = 20.0  # of one read from the socket, not of an object
    attempts: int = 3  # of one call, the first included


def parse_storage_url(url: str) -> FolderLocation | BucketLocation:
    """Raises ImproperlyConfigured, which names what is wrong and repeats no value that may hold a secret."""
    try:
        parts = urlsplit(url)
        has_credentials = "@" in parts.netloc
    except ValueError:
        raise _refusal("is no URL") from None
    if has_credentials:
        raise _refusal("must not hold credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.fragment or "#" in url:
        raise _refusal("must not hold a fragment")
    if parts.scheme == "file":
        return _parse_folder(parts.netloc, parts.path, parts.query)
    if parts.scheme == "s3":
        return _parse_bucket(parts.netloc, parts.path, parts.query)
    raise _refusal("must begin with file:// or s3://")


def check_storage_url(url: str) -> str:
    """The URL itself, once it is known to be good and the packages that it needs are installed."""
    location = parse_storage_url(url)
    if isinstance(location, BucketLocation) and not all(map(find_spec, ("storages", "boto3"))):
        raise _refusal("names a bucket, which needs the packages of the s3 extra: make STORAGE_URL=s3:// setup")
    return url


def _parse_folder(host: str, path: str, query: str) -> FolderLocation:
    if host not in ("", "localhost"):
        raise _refusal("needs three slashes and an absolute path: file:///srv/cantoria")
    if query:
        raise _refusal("takes no options with file://")
    if not path.strip("/"):
        raise _refusal("names no folder")
    return FolderLocation(Path(unquote(path)))


def _parse_bucket(bucket: str, path: str, query: str) -> BucketLocation:
    if not _BUCKET.fullmatch(bucket):
        raise _refusal("names no bucket, or one whose name S3 does not allow")
    if path not in ("", "/"):
        raise _refusal("must not hold a path: each tenant's prefix begins at the bucket's root")
    options = _read_options(query)
    endpoint = _read_endpoint(options)
    return BucketLocation(
        bucket=bucket,
        endpoint=endpoint,
        region=_read_region(options),
        addressing=cast(Addressing, _read_choice(options, "addressing", _ADDRESSING, _usual_addressing(endpoint))),
        checksums=cast(Checksums, _read_choice(options, "checksums", _CHECKSUMS, "when_required")),
        connect_timeout_seconds=_read_number(options, "connect_timeout_seconds", default=3.0, least=0.1, most=60.0),
        read_timeout_seconds=_read_number(options, "read_timeout_seconds", default=20.0, least=0.1, most=600.0),
        attempts=_read_attempts(options),
    )


def _read_options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise _refusal(f"has an unknown option {name[:40]!r}; known are {', '.join(_OPTIONS)}")
        if name in options:
            raise _refusal(f"gives the option {name} twice")
        if not value.strip():
            raise _refusal(f"gives the option {name} no value")
        options[name] = value.strip()
    return options


def _read_endpoint(options: dict[str, str]) -> str | None:
    if "endpoint" not in options:
        return None
    try:
        parts = urlsplit(options["endpoint"])
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in parts.netloc or parts.path not in ("", "/") or parts.query:
        raise _refusal("needs an endpoint of scheme, host and perhaps a port, such as https://s3.example")
    return f"{parts.scheme}://{parts.netloc}"


def _usual_addressing(endpoint: str | None) -> Addressing:
    """A server of one's own seldom has a certificate for every bucket's host; OSS takes nothing else."""
    if endpoint is None or (urlsplit(endpoint).hostname or "").endswith(_OSS_HOSTS):
        return "virtual"
    return "path"


def _read_region(options: dict[str, str]) -> str | None:
    region = options.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise _refusal("has a malformed region")
    return region


def _read_choice(options: dict[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = options.get(name, default)
    if value not in choices:
        raise _refusal(f"needs {name} to be one of {', '.join(choices)}")
    return value


def _read_number(options: dict[str, str], name: str, *, default: float, least: float, most: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = float("nan")
    if not least <= value <= most:  # not a number compares as false
        raise _refusal(f"needs {name} between {least:g} and {most:g}")
    return value


def _read_attempts(options: dict[str, str]) -> int:
    value = options.get("attempts", "3")
    if not re.fullmatch(r"[1-9]|10", value):
        raise _refusal("needs attempts between 1 and 10")
    return int(value)


def _refusal(what: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"The environment variable STORAGE_URL {what}. See .env.example.")
