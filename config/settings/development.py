"""A laptop: what `manage.py` uses by default. Missing servers and secrets are embedded, see config/embedded."""

from config.settings.base import *  # noqa: F403
