from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from synthesis.engines.base import ReferenceAudio, VoicePrompt
from synthesis.engines.gpt_sovits import pipeline
from synthesis.engines.gpt_sovits.engine import GptSovitsEngine
from synthesis.engines.gpt_sovits.library import Library
from tests.engines.gpt_sovits.random_models import install

# An untrained network makes no speech, and what the guards say of its codes is luck: those tests that are not about
# them look away. Ends come after one to four seconds.
END_LOGIT = 4.0


@pytest.fixture
def no_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "loops", lambda codes: False)
    monkeypatch.setattr(pipeline, "judge_codes", lambda codes, limits, *, ended: None)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny untrained model, imported from upstream's file formats."""
    folder = tmp_path_factory.mktemp("models")
    install(folder, tmp_path_factory.mktemp("checkpoints"), end_logit=END_LOGIT)
    return folder


@pytest.fixture(scope="session")
def library(model_path: Path) -> Iterator[Library]:
    torch.set_num_threads(1)
    library = Library(model_path, device="cpu")
    yield library
    library.close()


@pytest.fixture(scope="session")
def neural(library: Library) -> GptSovitsEngine:
    return library.open()


def make_clip(
    seed: int = 0, seconds: float = 4.0, *, transcript: str | None = "今天天气好。", language: str | None = "zh"
) -> ReferenceAudio:
    """A hum with a syllable's rhythm and some noise: untrained networks hear no words anyway."""
    rate_hz = 32_000
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    random = np.random.default_rng(seed)
    hum = np.sin(2 * np.pi * (110 + 20 * seed) * time) * (1 + np.sin(2 * np.pi * 4 * time)) / 8
    samples = (hum + 0.01 * random.standard_normal(len(time))).astype(np.float32)
    return ReferenceAudio(samples, rate_hz, language=language, transcript=transcript)


@pytest.fixture(scope="session")
def neural_voice(neural: GptSovitsEngine) -> VoicePrompt:
    return neural.prepare_voice([make_clip()])
