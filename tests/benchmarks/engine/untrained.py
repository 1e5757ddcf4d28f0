"""Untrained models of the published sizes, made once: as upstream reads them and as this engine does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.importing import import_sources
from tests.benchmarks.engine.workloads import CLIP_RATE_HZ, CLIP_SECONDS
from tests.engines.gpt_sovits.random_models import FULL, write_checkpoints

CLIP = "clip.wav"
OURS = "ours"  # MODEL_PATH: one model for each version, by its name in small letters
UPSTREAM = "upstream"  # the working directory of upstream's processes
_FORMAT = "1"  # another one makes the models anew
_SPEAKER_FILE = "sv/pretrained_eres2netv2w24s4ep4.ckpt"
# Upstream tells a version by the first two bytes in place of "PK" (process_ckpt.py, model_version2byte).
_VERSION_MARK = {ModelVersion.V2_PRO: b"05", ModelVersion.V2_PRO_PLUS: b"06"}


def prepare(folder: Path, versions: Sequence[str]) -> None:
    """Fill `folder` with what is not there yet: 40 s and 2.2 GB for the first version, less for others."""
    stamp = folder / "format"
    if not stamp.exists() or stamp.read_text() != _FORMAT:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stamp.write_text(_FORMAT)
        _write_clip(folder / CLIP)
    for version in map(ModelVersion, versions):
        if not (folder / OURS / version.lower() / "config.json").exists():
            _make(folder, version)


def _make(folder: Path, version: ModelVersion) -> None:
    scratch = folder / "scratch"
    pretrained = folder / UPSTREAM / "GPT_SoVITS" / "pretrained_models"
    pretrained.mkdir(parents=True, exist_ok=True)
    sources = write_checkpoints(scratch, version, FULL)
    import_sources(sources, model_path=folder / OURS, name=version.lower(), replace=True)

    semantic = torch.load(scratch / "s1.ckpt", weights_only=False)
    semantic["config"]["model"] |= {"dropout": 0.0}
    torch.save(semantic, pretrained / "s1.ckpt")
    vits = torch.load(scratch / "s2.pth", weights_only=False)
    vits["config"]["model"] |= {"p_dropout": 0.1, "resblock": "1"}
    vits["config"]["data"] = {
        "filter_length": 2048,
        "sampling_rate": 32_000,
        "hop_length": 640,
        "win_length": 2048,
        "n_speakers": 300,
    }
    vits["config"]["train"] = {"segment_size": 20_480}
    codebook = "quantizer.vq.layers.0._codebook."
    vits["weight"] |= {  # as after training: upstream makes a codebook of its own otherwise
        f"{codebook}inited": torch.ones(1),
        f"{codebook}cluster_size": torch.ones(1024),
        f"{codebook}embed_avg": vits["weight"][f"{codebook}embed"],
    }
    path = pretrained / f"s2{version}.pth"
    torch.save(vits, path)
    if version in _VERSION_MARK:
        with path.open("r+b") as file:
            file.write(_VERSION_MARK[version])
    for name in ("hubert", "roberta"):
        shutil.rmtree(pretrained / name, ignore_errors=True)
        shutil.move(scratch / name, pretrained / name)
    (pretrained / "hubert" / "preprocessor_config.json").write_text(
        '{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": false, "sampling_rate": 16000}'
    )
    if version.has_speaker_vector:
        (pretrained / _SPEAKER_FILE).parent.mkdir(exist_ok=True)
        shutil.move(scratch / "eres2netv2.ckpt", pretrained / _SPEAKER_FILE)
    shutil.rmtree(scratch)


def copy_upstream(checkout: Path, folder: Path) -> None:
    """Upstream's sources below its working directory, so that nothing is written into the checkout."""
    for name in ("GPT_SoVITS", "tools"):
        shutil.copytree(
            checkout / name,
            folder / UPSTREAM / name,
            ignore=shutil.ignore_patterns("pretrained_models", "__pycache__"),
            dirs_exist_ok=True,
        )


def read_all(folder: Path) -> int:
    """Bring the files into the page cache. Returns how many bytes they have."""
    total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            total += len(path.read_bytes())
    return total


def file_bytes(folder: Path, version: str) -> int:
    """What this engine maps of a voice model and of the extractors that it needs."""
    kinds = ["content", "bert"] + ["speaker"] * ModelVersion(version).has_speaker_vector
    folders = [folder / OURS / version.lower(), *(folder / OURS / "extractors" / kind for kind in kinds)]
    return sum(path.stat().st_size for place in folders for path in place.glob("*.safetensors"))


def _write_clip(path: Path) -> None:
    """A voiced sound with vibrato: any sound costs untrained networks the same."""
    seconds = np.arange(round(CLIP_SECONDS * CLIP_RATE_HZ)) / CLIP_RATE_HZ
    phase = 2 * np.pi * (140 * seconds + 2 * np.sin(2 * np.pi * 3 * seconds))
    voiced = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
    soundfile.write(path, (0.1 * voiced * (1 + np.sin(2 * np.pi * 2 * seconds))).astype(np.float32), CLIP_RATE_HZ)
