"""The content encoder (HuBERT)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synthesis.engines.gpt_sovits.content import ContentConfig, ContentEncoder
from synthesis.engines.gpt_sovits.errors import CheckpointMismatchError, UnsupportedModelError
from synthesis.engines.gpt_sovits.parity.features import content_checks, content_shapes, load_content_encoder
from synthesis.engines.gpt_sovits.parity.report import GoldenSet, recipe_state

TINY = GoldenSet(Path(__file__).parents[1] / "golden" / "open", "hubert_tiny")
POSITION = "encoder.pos_conv_embed.conv"


@pytest.fixture(scope="module")
def config():
    return TINY.description["config"]


@pytest.fixture
def state(config):
    """As transformers 4.57 writes it."""
    return recipe_state(content_shapes(ContentConfig.from_hugging_face(config)), TINY.description["seed"])


def load(state, config, dtype=torch.float32):
    return ContentEncoder.from_state(state, config, device=torch.device("cpu"), dtype=dtype)


def test_hidden_state_equals_upstreams():
    (case,) = content_checks(TINY)
    assert case.holds, case


def with_old_weight_norm(state):
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        state[f"{POSITION}.{old}"] = state.pop(f"{POSITION}.{new}")
    return state


def with_prefix(state):
    return {f"hubert.{key}": tensor for key, tensor in state.items()}


def with_unused(state):
    return state | {"masked_spec_embed": torch.zeros(48), "lm_head.weight": torch.zeros(32, 48)}


@pytest.mark.parametrize("written", [with_old_weight_norm, with_prefix, with_unused])
def test_files_of_other_versions_give_the_same_numbers(state, config, written):
    wav = TINY.tensors["wav"]
    wanted = load(state, config)(wav)
    torch.testing.assert_close(load(written(dict(state)), config)(wav), wanted, rtol=0, atol=0)


def test_key_that_is_missing_is_refused_by_name(state, config):
    load(state, config)
    del state["encoder.layers.1.final_layer_norm.bias"]
    with pytest.raises(CheckpointMismatchError, match=r"encoder\.layers\.1\.final_layer_norm\.bias"):
        load(state, config)


def test_key_that_is_not_ours_is_refused_by_name(state, config):
    state["encoder.layers.9.layer_norm.bias"] = torch.zeros(48)
    with pytest.raises(CheckpointMismatchError, match=r"encoder\.layers\.9\.layer_norm\.bias"):
        load(state, config)


def test_half_of_a_weight_norm_is_refused(state, config):
    del state[f"{POSITION}.parametrizations.weight.original0"]
    with pytest.raises(CheckpointMismatchError, match="original1"):
        load(state, config)


def test_tensor_of_another_shape_is_refused(state, config):
    state["encoder.layer_norm.bias"] = torch.zeros(47)
    with pytest.raises(CheckpointMismatchError, match="47"):
        load(state, config)


@pytest.mark.parametrize(
    ("option", "value"), [("do_stable_layer_norm", True), ("feat_extract_norm", "layer"), ("model_type", "wavlm")]
)
def test_hubert_of_another_build_is_refused(state, config, option, value):
    with pytest.raises(UnsupportedModelError, match=option):
        load(state, {**config, option: value})


def test_frames_are_20_milliseconds():
    encoder = load_content_encoder(TINY)
    assert encoder(torch.zeros(1, 57_600)).shape == (1, 48, 179)
    assert encoder(torch.zeros(2, 16_000)).shape == (2, 48, 49)


# Root mean square of the difference, measured 1.3 % and 0.16 %: 8 and 11 bits of mantissa over two layers.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_half_precision_stays_near(state, config, dtype, tolerance):
    wav = TINY.tensors["wav"]
    wanted = load(state, config)(wav)
    found = load(state, config, dtype)(wav)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt() < tolerance
