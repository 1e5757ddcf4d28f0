from __future__ import annotations

from collections.abc import Iterator

import pytest

from synthesis.engines.base import ReferenceAudio, VoicePrompt
from synthesis.engines.parametric import ParametricEngine
from tests.engines.references import make_reference


@pytest.fixture(scope="session")
def parametric() -> Iterator[ParametricEngine]:
    engine = ParametricEngine(espeak_workers=2)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def reference() -> ReferenceAudio:
    return make_reference(median_f0_hz=130.0, tract_scale=0.9)


@pytest.fixture(scope="session")
def voice(parametric: ParametricEngine, reference: ReferenceAudio) -> VoicePrompt:
    return parametric.prepare_voice([reference])
