from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from synthesis import prompts, worker
from synthesis.engines.fake import FakeEngine
from tenants.redis import redis_breaker
from tests.synthesis.jobs import Customer
from tests.voices.uploads import encode, speech
from voices.intake import InspectedClip, inspect_upload


@pytest.fixture(scope="session")
def clip() -> InspectedClip:
    """Four seconds that passed inspection."""
    return inspect_upload(io.BytesIO(encode(speech(4.0))), declared_filename=None, declared_content_type=None)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """This process works with a beep."""
    fake = FakeEngine()
    worker.use_engine(fake)
    yield fake
    worker.use_engine(None)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    prompts.memory.clear()
    redis_breaker.succeeded()
    yield
    prompts.memory.clear()


@pytest.fixture
def customer(clip: InspectedClip, engine: FakeEngine) -> Customer:
    """A tenant with a key and a voice that the fake engine has learned."""
    return Customer.make(clip)


@pytest.fixture
def other_customer(clip: InspectedClip, engine: FakeEngine) -> Customer:
    return Customer.make(clip)
