"""Models of the published sizes, untrained, in the service's real processes: from a clip and a text to ten seconds.

What an untrained network says is luck, and the guards refuse most of it: a request is repeated with other seeds.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from config.client import ApiClient
from config.reference import REFERENCE_CLIP
from synthesis.engines.gpt_sovits.config import ModelVersion
from tests.engines.gpt_sovits.random_models import FULL, install
from tests.serving_process import Serving, serve

pytestmark = pytest.mark.cluster

END_LOGIT = 3.3  # an utterance then takes a second or two
TEXT = "今天天气真好，我们去公园散步吧。" * 12
WANTED_SECONDS = 10.0
SEEDS = 8
MODELS = {"plain": ModelVersion.V2, "plus": ModelVersion.V2_PRO_PLUS}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, version in MODELS.items():
        checkpoints = tmp_path_factory.mktemp("checkpoints")
        install(folder, checkpoints, version, FULL, name=name, end_logit=END_LOGIT)
        shutil.rmtree(checkpoints)
    return folder


@pytest.fixture(scope="module")
def serving(model_path: Path) -> Iterator[Serving]:
    with serve(start_seconds=240, ENGINE="gpt_sovits", MODEL_PATH=str(model_path), MODEL="plain") as started:
        yield started


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_clip_and_a_text_become_ten_seconds(serving: Serving, model: str) -> None:
    api = f"http://127.0.0.1:{serving.port}"
    headers = {"Authorization": f"Bearer {serving.api_key}"}
    form = {"name": model, "consent": "true", "model": model, "language": "en", "transcript": "A clip for a voice."}
    upload = httpx.post(
        f"{api}/v1/voices", headers=headers, data=form, files={"audio": REFERENCE_CLIP.read_bytes()}, timeout=60
    )
    assert upload.status_code == 201, upload.text
    voice_id = upload.json()["id"]
    ApiClient(api, serving.api_key).wait_for_voice(voice_id, seconds=120)
    refusals = []
    for seed in range(SEEDS):
        body = {
            "voice_id": voice_id,
            "text": TEXT,
            "language": "zh",
            "seed": seed,
            "format": "wav",
            "sample_rate": 32_000,
        }
        try:
            answer = httpx.post(f"{api}/v1/speech", headers=headers, json=body, timeout=300)
        except httpx.RemoteProtocolError:  # sound had begun: the stream is cut, so that nobody takes it for whole
            refusals.append("cut")
            continue
        if answer.status_code != 200:
            refusals.append(json.loads(answer.content)["code"])
            continue
        samples, rate_hz = soundfile.read(io.BytesIO(answer.content))
        assert rate_hz == 32_000
        assert len(samples) / rate_hz >= WANTED_SECONDS
        assert float(np.sqrt(np.mean(samples**2))) > 0.001
        assert answer.headers["x-engine"] == "gpt_sovits"
        assert set(refusals) <= {"cut", "garbled_speech"}
        return
    raise AssertionError(f"no seed was spoken: {refusals}")


def test_only_the_worker_has_loaded_torch(serving: Serving) -> None:
    loaded: dict[str, bool] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().decode(errors="replace")
            parent = int(re.findall(r"^PPid:\s+(\d+)", (folder / "status").read_text(), flags=re.MULTILINE)[0])
            maps = (folder / "maps").read_text()
        except (OSError, IndexError):  # gone, or another user's
            continue
        kind = re.search(r"CANTORIA_PROCESS=(\w+)", environment)
        if parent == serving.pid and kind is not None and int(folder.name) != os.getpid():
            loaded[kind[1]] = "libtorch" in maps
    assert loaded == {"web": False, "admin": False, "dispatcher": False, "worker": True}
