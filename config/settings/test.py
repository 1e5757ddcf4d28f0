"""The test suite and the static checks. tests/conftest.py fills in the addresses of the run's own servers."""

import base64
import os
import tempfile
from pathlib import Path

from config.database import ROLES, URL_VARIABLES

# What the environment of a developer's shell says is about another installation.
os.environ.update(
    {variable: f"postgresql://{ROLES[alias]}@127.0.0.1:1/none" for alias, variable in URL_VARIABLES.items()}
)
os.environ.update(
    CANTORIA_PROCESS="manage",
    REDIS_URL="redis://127.0.0.1:1/0",
    STORAGE_URL=(Path(tempfile.gettempdir()) / "cantoria-tests-unset").as_uri(),
    SECRET_KEY="secret key of the tests",  # noqa: S106
    KEY_PEPPER="pepper of the tests",
    MASTER_KEY=base64.b64encode(b"master key of the tests, 32 byte").decode(),
    ENGINE="parametric",
    LOG_LEVEL="WARNING",
)

from config.settings.base import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
