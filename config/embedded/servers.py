"""Both embedded servers of one checkout, shared by all its processes, as environment variables.

Whoever comes first starts them, whoever leaves last stops them; a lock that the kernel drops with its holder counts.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from config.database import ROLES, URL_VARIABLES, create_roles
from config.embedded.postgres import EmbeddedPostgres
from config.embedded.redis import EmbeddedRedis
from config.embedded.secrets import EmbeddedSecrets, load_or_create_secrets

DATABASE: Final = "cantoria"
_REFUGE_PARENT: Final = Path("/var/lib")  # root only, when the checkout is closed to other accounts


class EmbeddedServers:
    """PostgreSQL and Redis under one `var` folder."""

    def __init__(self, var: Path, *, durable: bool = True) -> None:
        self.var = var
        self._durable = durable
        self._using: int | None = None
        self.postgres_port = 0
        self.redis_port = 0

    def start(self) -> None:
        """Join the users of the servers, and start what does not run. Raises EmbeddedServerError."""
        self.var.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self.secrets = self._load_secrets()
            logs = self.var / "log"
            logs.mkdir(exist_ok=True)
            self.postgres = EmbeddedPostgres(
                home=self.var / "postgres",
                refuge=_REFUGE_PARENT / f"cantoria-{self.secrets.installation}",
                log=logs / "postgres.log",
                superuser_password=self.secrets.superuser_password,
                durable=self._durable,
            )
            self.redis = EmbeddedRedis(
                home=self.var / "redis", log=logs / "redis.log", password=self.secrets.redis_password
            )
            self._using = os.open(self.var / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._using, fcntl.LOCK_SH)
            try:
                self.postgres_port = self.postgres.start()
                self.redis_port = self.redis.start()
                create_roles(
                    self.postgres.superuser_url(self.postgres_port),
                    database=DATABASE,
                    passwords=self.secrets.role_passwords,
                )
            except BaseException:
                self._leave()
                raise

    def are_running(self) -> bool:
        return self.postgres.is_running() and self.redis.is_running()

    def revive(self) -> None:
        """Start again what died, on the ports its clients know."""
        with self._lock():
            self.postgres.start(port=self.postgres_port)
            self.redis.start(port=self.redis_port)

    def stop(self) -> bool:
        """Leave; the last user stops the servers. Returns whether they were stopped."""
        if self._using is None:
            return False
        with self._lock():
            return self._leave()

    def environment(self) -> dict[str, str]:
        """The variables that a real installation would set by hand."""
        urls = {
            variable: (
                f"postgresql://{ROLES[alias]}:{quote(self.secrets.role_passwords[alias], safe='')}"
                f"@127.0.0.1:{self.postgres_port}/{DATABASE}"
            )
            for alias, variable in URL_VARIABLES.items()
        }
        return {
            **urls,
            "REDIS_URL": self.redis.url(self.redis_port),
            "SECRET_KEY": self.secrets.secret_key,
            "KEY_PEPPER": self.secrets.key_pepper,
            "MASTER_KEY": self.secrets.master_key,
            "STORAGE_URL": (self.var / "storage").absolute().as_uri(),
        }

    def _load_secrets(self) -> EmbeddedSecrets:
        return load_or_create_secrets(self.var / "secrets.json")

    def _leave(self) -> bool:
        assert self._using is not None
        try:
            fcntl.flock(self._using, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # others are at work
        else:
            self.redis.stop()
            self.postgres.stop()
            return True
        finally:
            os.close(self._using)
            self._using = None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = os.open(self.var / "servers.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
