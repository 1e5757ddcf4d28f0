"""The speaker network: upstream's vector, batch norms folded, strict loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from synthesis.engines.gpt_sovits.errors import CheckpointMismatchError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet, recipe_state
from synthesis.engines.gpt_sovits.parity.vits import speaker_cases, speaker_shapes
from synthesis.engines.gpt_sovits.speaker import SpeakerNetwork

GOLDEN = Path(__file__).parents[1] / "golden" / "open"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    return recipe_state(speaker_shapes(planes=8, blocks=(1, 2, 1, 1)), seed=3)


def test_equals_upstream() -> None:
    (case,) = speaker_cases(GoldenSet(GOLDEN, "dsp"))
    assert case.holds, case


def test_bfloat16_vector_points_the_same_way(small_state: dict[str, Tensor]) -> None:
    filter_bank = torch.randn(50, 80, generator=torch.Generator().manual_seed(1))
    exact = SpeakerNetwork.from_state(small_state, device=CPU).embed(filter_bank)
    fast = SpeakerNetwork.from_state(small_state, device=CPU, dtype=torch.bfloat16).embed(filter_bank)
    assert exact.shape == fast.shape == (8 * 8 * 4 * 10,)
    assert fast.dtype is torch.float32
    assert 0 < 1 - torch.cosine_similarity(exact, fast, dim=0) < 1e-3


@pytest.mark.parametrize("frames", [1, 8, 33])
def test_any_length_gives_one_vector(small_state: dict[str, Tensor], frames: int) -> None:
    network = SpeakerNetwork.from_state(small_state, device=CPU)
    vector = network.embed(torch.randn(frames, 80, generator=torch.Generator().manual_seed(1)))
    assert vector.shape == (2560,)
    assert vector.isfinite().all()


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("layer4.0.conv3.weight", "layer4.0.conv3.weight"),
        ("layer1.0.convs.0.weight", "layer1.0.convs.0.weight"),
        ("layer2.1.bns.2.running_mean", "layer2.1.convs.2.bias"),  # which it would have been folded into
        ("fuse34.local_att.3.bias", "fuse34.local_att.3.bias"),
    ],
)
def test_a_missing_key_is_named(small_state: dict[str, Tensor], key: str, named: str) -> None:
    state = {name: tensor for name, tensor in small_state.items() if name != key}
    with pytest.raises(CheckpointMismatchError) as caught:
        SpeakerNetwork.from_state(state, device=CPU)
    assert named in caught.value.details["missing"]


def test_only_the_listed_layer_is_left_out(small_state: dict[str, Tensor]) -> None:
    assert "seg_1.weight" in small_state
    SpeakerNetwork.from_state(small_state, device=CPU)
    with pytest.raises(CheckpointMismatchError) as caught:
        SpeakerNetwork.from_state({**small_state, "seg_2.weight": torch.ones(1)}, device=CPU)
    assert caught.value.details["unexpected"] == ["seg_2.weight"]
