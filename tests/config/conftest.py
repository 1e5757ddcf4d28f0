"""What tests of the house's surroundings borrow from the rooms: a customer with a voice, and a beeping engine."""

from __future__ import annotations

from tests.synthesis.conftest import _nothing_remembered, clip, customer, engine

__all__ = ["_nothing_remembered", "clip", "customer", "engine"]
