"""What can go wrong with the embedded servers; each message names its cure."""

from __future__ import annotations


class EmbeddedServerError(Exception):
    """An embedded server could not be placed, started or stopped."""


class ServerEndedError(EmbeddedServerError):
    """A server ended while it was starting: its port may have been taken in that moment, so another try may help."""
