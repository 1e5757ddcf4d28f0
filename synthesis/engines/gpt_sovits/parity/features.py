"""Audio features, both encoders, wave joining and batching against upstream's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, takewhile

import soxr
import torch
from torch import Tensor

from synthesis.engines.gpt_sovits import features
from synthesis.engines.gpt_sovits.bert import UNUSED_LAYERS, BertConfig, PhoneText, TextEncoder, Vocabulary
from synthesis.engines.gpt_sovits.content import ContentConfig, ContentEncoder
from synthesis.engines.gpt_sovits.parity.batching import bucket_by_length, group_in_order, restore_order
from synthesis.engines.gpt_sovits.parity.joining import join_overlapping, join_with_pauses
from synthesis.engines.gpt_sovits.parity.report import (
    Case,
    Checker,
    GoldenSet,
    compare,
    compare_equal,
    recipe_state,
)
from synthesis.engines.gpt_sovits.parity.vits import speaker_cases

CPU = torch.device("cpu")


def dsp_checks(golden: GoldenSet) -> Iterator[Case]:
    """The set `dsp`: signal processing, and the speaker network it feeds."""
    yield from signal_checks(golden)
    yield from speaker_cases(golden)


def signal_checks(golden: GoldenSet) -> Iterator[Case]:
    """Resampling, spectrograms and mel bands."""
    tensors = golden.tensors
    a32, a24, mono = tensors["a32"], tensors["a24"], tensors["a44"].mean(0, keepdim=True)
    prompt = soxr.resample(mono[0].numpy(), 44_100, 16_000, quality="HQ")
    mel_v4 = features.log_mel(a32, features.MEL_V4)
    found = {
        "spec32": features.reference_spectrogram(a32),
        "mel_v3_24k": features.log_mel(a24, features.MEL_V3),
        "mel_v4_32k": mel_v4,
        "mel_norm_v4_32k": features.normalize_mel(mel_v4),
        "a44_mono_to_32k": features.resample(mono, 44_100, 32_000),
        "a32_to_16k": features.speaker_audio(a32),
        "a24_to_32k": features.resample(a24, 24_000, 32_000),
        "a44_soxr_hq_16k": torch.from_numpy(prompt),
        "fbank80_16k": features.kaldi_fbank(tensors["a32_to_16k"])[0],
    }
    for name, tensor in found.items():
        yield compare(f"{golden.name}.{name}", tensor, tensors[name])


def content_checks(golden: GoldenSet) -> Iterator[Case]:
    """HuBERT by recipe."""
    tensors = golden.tensors
    encoder = load_content_encoder(golden)
    found = encoder(tensors["wav"]).transpose(1, 2)
    yield compare(f"{golden.name}.last_hidden_state", found, tensors["last_hidden_state"])


def load_content_encoder(golden: GoldenSet, *, dtype: torch.dtype = torch.float32) -> ContentEncoder:
    """The encoder of one set."""
    description = golden.description
    assert description["weights"] == "recipe"
    config = description["config"]
    state = recipe_state(content_shapes(ContentConfig.from_hugging_face(config)), description["seed"])
    return ContentEncoder.from_state(state, config, device=CPU, dtype=dtype)


def content_shapes(config: ContentConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of HubertModel's state dict as transformers 4.57 writes it (less what only training uses)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    narrow = 1
    for i, (wide, kernel) in enumerate(zip(config.conv_widths, config.conv_kernels, strict=True)):
        layer(f"feature_extractor.conv_layers.{i}.conv", wide, narrow, kernel, bias=False)
        narrow = wide
    for part in ("weight", "bias"):
        shapes[f"feature_extractor.conv_layers.0.layer_norm.{part}"] = config.conv_widths[:1]
        shapes[f"feature_projection.layer_norm.{part}"] = (narrow,)
        shapes[f"encoder.layer_norm.{part}"] = (config.width,)
    layer("feature_projection.projection", config.width, narrow)
    position = "encoder.pos_conv_embed.conv"
    shapes[f"{position}.bias"] = (config.width,)
    shapes[f"{position}.parametrizations.weight.original0"] = (1, 1, config.position_kernel)
    grouped = (config.width, config.width // config.position_groups, config.position_kernel)
    shapes[f"{position}.parametrizations.weight.original1"] = grouped
    for i in range(config.layers):
        name = f"encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            layer(f"{name}.attention.{part}", config.width, config.width)
        layer(f"{name}.feed_forward.intermediate_dense", config.hidden, config.width)
        layer(f"{name}.feed_forward.output_dense", config.width, config.hidden)
        for norm in ("layer_norm", "final_layer_norm"):
            layer(f"{name}.{norm}", config.width)
    return shapes


def text_encoder_checks(golden: GoldenSet) -> Iterator[Case]:
    """RoBERTa by recipe: token ids, then one vector a phone, each text alone and all in one batch."""
    description, tensors = golden.description, golden.tensors
    encoder = load_text_encoder(golden)
    vocabulary = encoder.vocabulary
    cases = description["cases"]
    texts = [PhoneText(case["text"], case["word2ph"]) for case in cases]
    for case, text, batched in zip(cases, texts, encoder.phone_features_of_all(texts), strict=True):
        name, wanted = f"{golden.name}.{case['case']}", tensors[f"{case['case']}.feature"]
        ids = [vocabulary.start, *vocabulary.ids(text.norm_text), vocabulary.end]
        yield compare_equal(f"{name}.input_ids", ids, case["input_ids"])
        yield compare(f"{name}.feature", encoder.phone_features(text), wanted)
        yield compare(f"{name}.feature_batched", batched, wanted)


def load_text_encoder(golden: GoldenSet, *, dtype: torch.dtype = torch.float32) -> TextEncoder:
    """The encoder of one set."""
    description = golden.description
    assert description["weights"].startswith("recipe")
    state = recipe_state(text_encoder_shapes(BertConfig.from_hugging_face(description["config"])), description["seed"])
    # Both names are one tensor in transformers, and the recipe went over the head's name last.
    state["bert.embeddings.word_embeddings.weight"] = state.pop("cls.predictions.decoder.weight")
    vocabulary = Vocabulary.read(golden.folder / description["vocab"])
    return TextEncoder.from_state(state, description["config"], vocabulary, device=CPU, dtype=dtype)


def text_encoder_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of BertForMaskedLM's state dict, of its heads only the matrix that is the word embedding too."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    width, hidden = config.width, config.hidden
    shapes["bert.embeddings.word_embeddings.weight"] = (config.vocabulary, width)
    shapes["bert.embeddings.position_embeddings.weight"] = (config.positions, width)
    shapes["bert.embeddings.token_type_embeddings.weight"] = (config.token_types, width)
    layer("bert.embeddings.LayerNorm", width)
    for i in range(config.layers + UNUSED_LAYERS):
        name = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            layer(f"{name}.attention.self.{part}", width, width)
        layer(f"{name}.attention.output.dense", width, width)
        layer(f"{name}.attention.output.LayerNorm", width)
        layer(f"{name}.intermediate.dense", hidden, width)
        layer(f"{name}.output.dense", width, hidden)
        layer(f"{name}.output.LayerNorm", width)
    shapes["cls.predictions.decoder.weight"] = (config.vocabulary, width)
    return shapes


def wave_checks(golden: GoldenSet) -> Iterator[Case]:
    """The set `sola_post`: overlap-add, and what upstream makes of the decoded batches."""
    description, tensors = golden.description, golden.tensors
    pieces = _numbered(tensors, "sola.in")
    overlap = description["sola"]["overlap_len"]
    search = description["sola"]["search_len"]
    joined = join_overlapping(pieces, overlap_samples=overlap, search_samples=search)
    yield compare(f"{golden.name}.sola", joined, tensors["sola.out"])

    post = description["post"]
    fragments = _numbered(tensors, "post.in")
    batches = [[fragments[index] for index in batch] for batch in post["batches"]]
    utterances = restore_order(batches, post["batch_index_list"])
    wave = join_with_pauses(utterances, pause_samples=int(post["sr"] * post["fragment_interval"]))
    yield compare_equal(f"{golden.name}.post", to_upstream_int16(wave).tolist(), tensors["post.out"].tolist())


def to_upstream_int16(wave: Tensor) -> Tensor:
    """(N,) to int16 as upstream: towards zero, and +1.0 wraps round to -32768. Our own encoders round and clip."""
    return (wave * 32768).to(torch.int32).to(torch.int16)


def _numbered(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    return [tensors[key] for key in takewhile(tensors.__contains__, (f"{name}.{i}" for i in count()))]


def bucket_checks(golden: GoldenSet) -> Iterator[Case]:
    """Which texts share a batch."""
    for i, case in enumerate(golden.description["cases"]):
        lengths, batch_size = case["lens"], case["batch_size"]
        if case["split_bucket"]:
            found = bucket_by_length(lengths, batch_size=batch_size, threshold=case["threshold"])
        else:
            found = group_in_order(len(lengths), batch_size=batch_size)
        yield compare_equal(f"{golden.name}.{i}", found, case["batch_index_list"])


CHECKERS: dict[str, Checker] = {
    "dsp": dsp_checks,
    "hubert_": content_checks,
    "bert_": text_encoder_checks,
    "sola_post": wave_checks,
    "buckets": bucket_checks,
}
