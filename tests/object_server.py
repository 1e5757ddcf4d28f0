"""A real S3 server for the tests: `rclone serve s3` on loopback, one secret and one root folder for each access key.

An account cannot reach what is outside its root, so a test that runs as one tenant's account shows that nothing of that
tenant leaves its prefix, and nothing of another can be touched with its key.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

BUCKET: Final = "cantoria"
_START_SECONDS: Final = 20.0
_LISTENING: Final = re.compile(r"http://127\.0\.0\.1:(\d+)/")

# rclone asks it for each access key it meets: where that account's files are, and the secret to check signatures with.
_AUTHENTICATOR: Final = """#!{python}
import json, sys
account = json.load(open({accounts!r})).get(json.load(sys.stdin)["user"])
if account is None:
    sys.exit("unknown access key")
print(json.dumps({{"type": "local", "_root": account["root"], "_secret_access_key": account["secret_key"]}}))
"""


@dataclass(frozen=True, slots=True)
class Account:
    """One access key. Buckets are folders of `root`."""

    access_key: str
    secret_key: str
    root: Path

    @property
    def bucket_folder(self) -> Path:
        return self.root / BUCKET

    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


class ObjectServer:
    """`folder` holds the accounts' roots, and the server's log."""

    def __init__(self, folder: Path, *, has_bucket_in_host: bool = False) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._has_bucket_in_host = has_bucket_in_host
        self._accounts: dict[str, Account] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self.port = 0

    def add_account(self, name: str) -> Account:
        """May be called while the server runs."""
        account = Account(f"KEY{name.upper()}", f"secret of {name}", self._folder / name)
        account.bucket_folder.mkdir(parents=True)
        self._accounts[account.access_key] = account
        listed = {key: {"secret_key": it.secret_key, "root": str(it.root)} for key, it in self._accounts.items()}
        self._accounts_file.write_text(json.dumps(listed))
        return account

    def start(self) -> None:
        """On the port it had before, if it ran before."""
        authenticator = self._folder / "authenticator"
        authenticator.write_text(_AUTHENTICATOR.format(python=sys.executable, accounts=str(self._accounts_file)))
        authenticator.chmod(0o700)
        log = self._folder / f"rclone-{time.monotonic_ns()}.log"
        self._child = subprocess.Popen(
            [
                str(Path(sysconfig.get_path("scripts"), "rclone")),
                *("serve", "s3", "--config", "", "--log-level", "INFO"),
                *("--addr", f"127.0.0.1:{self.port}", "--auth-proxy", str(authenticator)),
                *("--dir-cache-time", "1s"),  # what tests write into the folders themselves is seen after that
                f"--force-path-style={'false' if self._has_bucket_in_host else 'true'}",
            ],
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
        )
        give_up_at = time.monotonic() + _START_SECONDS
        while not (listening := _LISTENING.search(log.read_text())):
            has_failed = self._child.poll() is not None or time.monotonic() > give_up_at
            assert not has_failed, log.read_text()
            time.sleep(0.02)
        self.port = int(listening[1])

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def url(self, *, host: str = "127.0.0.1", **options: str) -> str:
        """A STORAGE_URL; credentials come from an account's `environment`."""
        given = {"endpoint": f"http://{host}:{self.port}", "region": "eu-1", **options}
        return f"s3://{BUCKET}?{urlencode(given)}"

    @property
    def _accounts_file(self) -> Path:
        return self._folder / "accounts.json"
