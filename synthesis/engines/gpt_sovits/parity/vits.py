"""The SoVITS decoder (`vits_*`) and the speaker network (in the set `dsp`) against upstream's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor

from synthesis.engines.gpt_sovits.config import CODEBOOK_SIZE, ModelVersion, VitsConfig
from synthesis.engines.gpt_sovits.parity.report import (
    Case,
    Checker,
    GoldenSet,
    compare,
    compare_equal,
    recipe_state,
)
from synthesis.engines.gpt_sovits.speaker import SpeakerNetwork
from synthesis.engines.gpt_sovits.vits import Vits
from synthesis.engines.gpt_sovits.weights import read_checkpoint

CPU = torch.device("cpu")
_DEFAULT_MRTE = 512
_SYMBOLS = {"v1": 322, "v2": 732}
_FLOW_LAYERS = 4  # upstream's SynthesizerTrn passes these four to its flow
_COUPLINGS = 4
_FLOW_KERNEL = 5
_STYLE_WIDTH = 128
_SPEAKER_WIDTH = 20480


def vits_checks(golden: GoldenSet) -> Iterator[Case]:
    """Every case of one `vits_*` set."""
    description, tensors = golden.description, golden.tensors
    vits = load_vits(golden)
    quantised = vits.quantise(tensors["ssl"])
    yield compare_equal(f"{golden.name}.ssl_codes", quantised.tolist(), tensors["ssl_codes"].flatten().tolist())
    for case in description["cases"]:
        name = case["case"]
        own = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        style = _style(vits, own)
        if "wav1" in own:
            yield from _streaming_checks(f"{golden.name}.{name}", vits, own, style, case)
            continue
        codes, phones, speed = own["codes"].flatten(), own["text"].flatten(), float(case["speed"])
        scale = float(case["noise_scale"])
        assert scale == 0.0  # upstream's noise cannot be drawn again
        mean, log_scale = vits.encode(codes, phones, style, speed)
        wave = vits.decode(codes, phones, style, speed=speed, generator=torch.Generator(), noise_scale=scale)
        found = {"ge": style, "m_p": mean, "logs_p": log_scale, "z": vits.flow.inverse(mean, style)}
        for part, tensor in {**found, "wav": wave[None, None]}.items():
            yield compare(f"{golden.name}.{name}.{part}", tensor, own[part])


def _streaming_checks(
    name: str, vits: Vits, own: Mapping[str, Tensor], style: Tensor, case: Mapping[str, Any]
) -> Iterator[Case]:
    """Upstream's decode_streaming in two chunks: the pieces of our stream, put together as upstream does."""
    codes = own["codes"].flatten()
    text = vits.encode_text(own["text"].flatten())
    first = own["latent1"].shape[2] // 2  # codes
    latent_1 = vits.encode_speech(codes[:first], text, style)
    # The second call renders the last frames only; the first few of them it fades from the first call's last, the later
    # by a sine, the earlier by a cosine (TextEncoder.forward).
    frames = own["latent2"].shape[2]
    latent_2 = vits.encode_speech(codes, text, style)[:, :, -frames:].clone()
    overlap = frames - 2 * (len(codes) - first)
    fade = torch.sin(torch.arange(2 * overlap) * (torch.pi / (2 * overlap)))
    faded = fade[:overlap] * latent_2[:, :, :overlap] + fade[overlap:] * latent_1[:, :, -overlap:]
    latent_2 = torch.cat([faded, latent_2[:, :, overlap:]], dim=2)
    for part, latent in (("1", latent_1), ("2", latent_2)):
        yield compare(f"{name}.latent{part}", latent, own[f"latent{part}"])
        mean, _ = vits.statistics(latent)
        yield compare(f"{name}.wav{part}", vits.dec(vits.flow.inverse(mean, style), style), own[f"wav{part}"])


def load_vits(golden: GoldenSet, *, dtype: torch.dtype = torch.float32) -> Vits:
    """The decoder of one set, from its checkpoint file or from the recipe."""
    description = golden.description
    version = ModelVersion(description["version"])
    file = description["weights"].split()[0]
    if file == "recipe":
        mrte = description["mrte"]
        width = mrte["hidden_size"] if isinstance(mrte, dict) else _DEFAULT_MRTE
        shapes = vits_shapes(description["config"], version, mrte_width=width)
        state, config = recipe_state(shapes, description["seed"]), description["config"]
    else:
        checkpoint = read_checkpoint(golden.folder / file)
        assert checkpoint.version is version
        state, config = checkpoint.state, checkpoint.config
    return Vits.from_state(state, VitsConfig.from_upstream(config, version), device=CPU, dtype=dtype)


def _style(vits: Vits, own: Mapping[str, Tensor]) -> Tensor:
    """The style of all the references of a case."""

    def numbered(prefix: str) -> list[Tensor]:
        return [own[key][0].float() for key in takewhile(own.__contains__, (f"{prefix}.{i}" for i in count()))]

    return vits.style(numbered("refer"), numbered("sv_emb") or None)


def vits_shapes(
    config: Mapping[str, Any], version: ModelVersion, *, mrte_width: int = _DEFAULT_MRTE
) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of upstream's state dict (less `enc_q.*`) for its configuration, for models made by recipe."""
    model = config["model"]
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    def normed(name: str, *weight: int, bias: int) -> None:
        shapes[f"{name}.weight_g"] = (weight[0], *[1] * (len(weight) - 1))
        shapes[f"{name}.weight_v"] = weight
        shapes[f"{name}.bias"] = (bias,)

    width, latent, filters = model["hidden_channels"], model["inter_channels"], model["filter_channels"]
    style, heads, kernel = model["gin_channels"], model["n_heads"], model["kernel_size"]

    def encoder(name: str, layers: int) -> None:
        for i in range(layers):
            for part in ("conv_q", "conv_k", "conv_v", "conv_o"):
                layer(f"{name}.attn_layers.{i}.{part}", width, width, 1)
            for part in ("emb_rel_k", "emb_rel_v"):
                shapes[f"{name}.attn_layers.{i}.{part}"] = (1, 9, width // heads)
            for part in ("norm_layers_1", "norm_layers_2"):
                shapes[f"{name}.{part}.{i}.gamma"] = shapes[f"{name}.{part}.{i}.beta"] = (width,)
            layer(f"{name}.ffn_layers.{i}.conv_1", filters, width, kernel)
            layer(f"{name}.ffn_layers.{i}.conv_2", width, filters, kernel)

    layer("ssl_proj", 768, 768, 2)
    shapes["quantizer.vq.layers.0._codebook.embed"] = (CODEBOOK_SIZE, 768)
    layer("enc_p.ssl_proj", width, 768, 1)
    encoder("enc_p.encoder_ssl", model["n_layers"] // 2)
    encoder("enc_p.encoder_text", model["n_layers"])
    encoder("enc_p.encoder2", model["n_layers"] // 2)
    shapes["enc_p.text_embedding.weight"] = (_SYMBOLS[version.symbol_table], width)
    layer("enc_p.mrte.c_pre", mrte_width, width, 1)
    layer("enc_p.mrte.text_pre", mrte_width, width, 1)
    layer("enc_p.mrte.c_post", width, mrte_width, 1)
    for part in ("conv_q", "conv_k", "conv_v", "conv_o"):
        layer(f"enc_p.mrte.cross_attention.{part}", mrte_width, mrte_width, 1)
    layer("enc_p.proj", 2 * latent, width, 1)

    for i in range(0, 2 * _COUPLINGS, 2):
        layer(f"flow.flows.{i}.pre", width, latent // 2, 1)
        layer(f"flow.flows.{i}.post", latent // 2, width, 1)
        gates = f"flow.flows.{i}.enc"
        normed(f"{gates}.cond_layer", 2 * width * _FLOW_LAYERS, style, 1, bias=2 * width * _FLOW_LAYERS)
        for j in range(_FLOW_LAYERS):
            split = width if j == _FLOW_LAYERS - 1 else 2 * width
            normed(f"{gates}.in_layers.{j}", 2 * width, width, _FLOW_KERNEL, bias=2 * width)
            normed(f"{gates}.res_skip_layers.{j}", split, width, 1, bias=split)

    channels, blocks = model["upsample_initial_channel"], len(model["resblock_kernel_sizes"])
    layer("dec.conv_pre", channels, latent, 7)
    layer("dec.cond", channels, style, 1)
    for i, up_kernel in enumerate(model["upsample_kernel_sizes"]):
        normed(f"dec.ups.{i}", channels, channels // 2, up_kernel, bias=channels // 2)
        channels //= 2
        for j, size in enumerate(model["resblock_kernel_sizes"]):
            for k in range(len(model["resblock_dilation_sizes"][j])):
                for part in ("convs1", "convs2"):
                    block = f"dec.resblocks.{i * blocks + j}.{part}.{k}"
                    normed(block, channels, channels, size, bias=channels)
    layer("dec.conv_post", 1, channels, 7, bias=False)

    layer("ref_enc.spectral.0.fc", _STYLE_WIDTH, version.reference_bins)
    layer("ref_enc.spectral.3.fc", _STYLE_WIDTH, _STYLE_WIDTH)
    for i in range(2):
        layer(f"ref_enc.temporal.{i}.conv1.conv", 2 * _STYLE_WIDTH, _STYLE_WIDTH, 5)
    for part in ("w_qs", "w_ks", "w_vs", "fc"):
        layer(f"ref_enc.slf_attn.{part}", _STYLE_WIDTH, _STYLE_WIDTH)
    layer("ref_enc.fc.fc", style, _STYLE_WIDTH)
    if version.has_speaker_vector:
        layer("sv_emb", style, _SPEAKER_WIDTH)
        layer("ge_to512", mrte_width, style)
        shapes["prelu.weight"] = (style,)
    return shapes


def speaker_cases(golden: GoldenSet) -> Iterator[Case]:
    """The speaker vector of the set `dsp`."""
    tensors = golden.tensors
    state = recipe_state(speaker_shapes(), golden.description["seed"])
    network = SpeakerNetwork.from_state(state, device=CPU)
    yield compare(f"{golden.name}.sv_emb", network.embed(tensors["fbank80_16k"])[None], tensors["sv_emb"])


def speaker_shapes(planes: int = 64, blocks: Sequence[int] = (3, 4, 6, 3)) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of ERes2NetV2 (width 24, scale 4, expansion 4; defaults as published), for recipes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *weight: int, bias: bool = False) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def fusion(name: str, channels: int) -> None:
        conv(f"{name}.local_att.0", channels // 4, 2 * channels, 1, 1, bias=True)
        norm(f"{name}.local_att.1", channels // 4)
        conv(f"{name}.local_att.3", channels, channels // 4, 1, 1, bias=True)
        norm(f"{name}.local_att.4", channels)

    conv("conv1", planes, 1, 3, 3)
    norm("bn1", planes)
    entering = planes
    for stage, repeats in enumerate(blocks):
        width, leaving = (planes << stage) * 24 // 64, (planes << stage) * 4
        for i in range(repeats):
            block = f"layer{stage + 1}.{i}"
            conv(f"{block}.conv1", 4 * width, entering, 1, 1)
            norm(f"{block}.bn1", 4 * width)
            for j in range(4):
                conv(f"{block}.convs.{j}", width, width, 3, 3)
                norm(f"{block}.bns.{j}", width)
            for j in range(3 if stage >= 2 else 0):
                fusion(f"{block}.fuse_models.{j}", width)
            conv(f"{block}.conv3", leaving, 4 * width, 1, 1)
            norm(f"{block}.bn3", leaving)
            if i == 0:
                conv(f"{block}.shortcut.0", leaving, entering, 1, 1)
                norm(f"{block}.shortcut.1", leaving)
            entering = leaving
    conv("layer3_ds", entering, entering // 2, 3, 3)
    fusion("fuse34", entering)
    conv("seg_1", 192, 2 * 10 * entering, bias=True)
    return shapes


CHECKERS: dict[str, Checker] = {"vits_": vits_checks}
