"""The text-to-semantic transformer (`ar_*`) and its sampling against upstream's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthesis.engines.gpt_sovits.config import SemanticConfig
from synthesis.engines.gpt_sovits.parity.report import Case, Checker, GoldenSet, compare, compare_equal, recipe_state
from synthesis.engines.gpt_sovits.sampling import Sampler, SamplingOptions, draw
from synthesis.engines.gpt_sovits.semantic import (
    MAX_STEPS,
    MIN_CODES,
    DecodeBatch,
    SemanticDecoder,
    SemanticRow,
    state_shapes,
)
from synthesis.engines.gpt_sovits.weights import read_checkpoint

CPU = torch.device("cpu")
_NAIVE = "infer_panel_naive"


def semantic_checks(golden: GoldenSet) -> Iterator[Case]:
    """Every case of one `ar_*` set: the codes of each row, and the logits that the set has of single steps."""
    tensors = golden.tensors
    decoder = load_decoder(golden)
    for case in golden.description["cases"]:
        name = case["case"]
        own = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        if case.get("path") == _NAIVE:
            decoded = _decode(decoder, _naive_rows(case, own), shared_noise=None)
            wanted = own["out"].flatten().tolist()
            yield compare_equal(f"{golden.name}.{name}.codes", decoded.sequences[0], wanted)
            continue
        decoded = _decode(decoder, _batch_rows(case, own), shared_noise=int(case["torch_seed"]))
        for row, sequence in enumerate(decoded.sequences):
            wanted = own[f"out.{row}"].flatten().tolist()
            yield compare_equal(f"{golden.name}.{name}.codes.{row}", sequence, wanted)
        for key in sorted(key for key in own if key.startswith("logits_step")):
            # A set of fewer steps than the key says has its last step there.
            step = min(int(key.removeprefix("logits_step")), len(decoded.logits) - 1)
            found = decoded.logits[step][:, : own[key].shape[1]]  # upstream cuts the end code off while it is forbidden
            yield compare(f"{golden.name}.{name}.{key}", found, own[key])


def load_decoder(golden: GoldenSet) -> SemanticDecoder:
    description = golden.description
    source = description["weights"].split()[0]
    if source == "recipe":
        config = _recipe_config(description["config"])
        state: Mapping[str, Tensor] = recipe_state(state_shapes(config), int(description["seed"]), prefix="model.")
    else:
        checkpoint = read_checkpoint(golden.folder / source)
        state, config = checkpoint.state, SemanticConfig.from_upstream(description["config"], checkpoint.shapes)
    return SemanticDecoder.from_state(state, config, device=CPU, dtype=torch.float32)


def _recipe_config(config: Mapping[str, Any]) -> SemanticConfig:
    model = config["model"]
    return SemanticConfig(
        width=model["hidden_dim"],
        heads=model["head"],
        layers=model["n_layer"],
        phones=model["phoneme_vocab_size"],
        codes=model["vocab_size"],
    )


def sampling_checks(golden: GoldenSet) -> Iterator[Case]:
    """Every case of the set `sampling`: the penalised logits, the probabilities after all filters, the codes drawn."""
    tensors = golden.tensors
    for case in golden.description["cases"]:
        name = f"{golden.name}.{case['case']}"
        logits, previous = tensors[f"{case['case']}.logits"].clone(), tensors[f"{case['case']}.prev"]
        sampler = Sampler([_options(case, logits.shape[1])] * len(logits), logits.shape[1], CPU)
        seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, previous, True)
        sampler.penalise(logits, seen)
        yield compare(f"{name}.logits_after", logits, tensors[f"{case['case']}.logits_after"])
        probabilities = sampler.probabilities(logits)
        yield compare(f"{name}.probs", probabilities, tensors[f"{case['case']}.probs"])
        generator = torch.Generator().manual_seed(int(case["torch_seed"]))
        codes = draw(probabilities, torch.empty_like(logits).exponential_(generator=generator))
        yield compare_equal(f"{name}.sampled", codes.tolist(), tensors[f"{case['case']}.sampled"].flatten().tolist())


CHECKERS: dict[str, Checker] = {"ar_": semantic_checks, "sampling": sampling_checks}


def _options(case: Mapping[str, Any], vocabulary: int) -> SamplingOptions:
    """Upstream's null is "no filter". What a case does not name is upstream's default of the function it called."""
    return SamplingOptions(
        top_k=case["top_k"] or vocabulary,
        top_p=case.get("top_p") or 1.0,
        temperature=case.get("temperature", 1.0),
        repetition_penalty=case.get("repetition_penalty", 1.35),
    )


def _batch_rows(case: Mapping[str, Any], own: Mapping[str, Tensor]) -> list[SemanticRow]:
    """Upstream's batched function runs one step more than `early_stop_num`, or to its last step, and throws the code of
    that step away: as many codes as a limit of `early_stop_num` gives.
    """
    most = _early_stop(case)
    return [
        _row(case, own[f"phones.{row}"], own[f"bert.{row}"], own["prompt"], min(most, MAX_STEPS - 1))
        for row in range(len(case["lens"]))
    ]


def _naive_rows(case: Mapping[str, Any], own: Mapping[str, Tensor]) -> list[SemanticRow]:
    """The unbatched function runs that one step more and keeps its code. Without a prompt it has no `prompt` tensor."""
    prompt = own.get("prompt", torch.zeros(0, dtype=torch.int64))
    return [_row(case, own["phones"], own["bert"], prompt, min(_early_stop(case) + 1, MAX_STEPS))]


def _early_stop(case: Mapping[str, Any]) -> int:
    stop = int(case["early_stop_num"])
    return MAX_STEPS if stop == -1 else stop  # upstream: -1 is none


def _row(case: Mapping[str, Any], phones: Tensor, bert: Tensor, prompt: Tensor, max_codes: int) -> SemanticRow:
    return SemanticRow(
        phones=phones.flatten(),
        bert=bert.reshape(bert.shape[-2:]),
        prompt=prompt.flatten(),
        sampling=_options(case, vocabulary=MAX_STEPS),
        generator=torch.Generator(),
        max_codes=max_codes,
    )


@dataclass(frozen=True, slots=True)
class _Decoded:
    sequences: list[list[int]]  # prompt and codes of each row, as upstream returns them
    logits: list[Tensor]  # (B, V) of each step


def _decode(decoder: SemanticDecoder, rows: list[SemanticRow], shared_noise: int | None) -> _Decoded:
    """shared_noise: the seed of upstream's one generator for all rows; None for greedy cases, which need none."""
    draw_noise = None if shared_noise is None else _upstream_noise(shared_noise, decoder.config.end_code)
    batch = DecodeBatch(decoder, rows=len(rows), positions=max(row.positions for row in rows), draw_noise=draw_noise)
    sequences = {number: row.prompt.tolist() for number, row in zip(batch.admit(rows), rows, strict=True)}
    logits = []
    while batch.live:
        logits.append(batch.next_logits())
        for event in batch.advance(logits[-1].clone()):
            if event.code is not None:
                sequences[event.row].append(event.code)
    return _Decoded(list(sequences.values()), logits)


def _upstream_noise(seed: int, end_code: int) -> Callable[[Tensor], None]:
    """One draw a step for the rows that are left, as wide as upstream's logits: without the end code at first."""
    generator = torch.Generator().manual_seed(seed)
    widths = iter([end_code] * MIN_CODES)

    def draw_noise(noise: Tensor) -> None:
        width = next(widths, end_code + 1)
        noise.fill_(1.0)
        noise[:, :width] = torch.empty(len(noise), width).exponential_(generator=generator)

    return draw_noise
