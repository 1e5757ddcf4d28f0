"""The text-to-semantic transformer (upstream AR/models/t2s_model.py, `Text2SemanticDecoder`), for inference.

    SemanticDecoder    the weights: phones, BERT features and prompt codes -> logits of the next code (25 Hz)
    DecodeBatch        the state of the utterances being decoded; rows join and leave between any two steps

A sequence is the text, then the codes: text positions attend to all text, code positions to all text and to the codes
up to themselves. Blocks are post-norm. Below, C is the width, S a row's phones, P its prompt codes, M positions of any
rows laid end to end: no row is padded, because everything but attention treats positions alone, and attention is
computed row by row over exactly the row's own positions. So a row's numbers do not depend on its neighbours.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

from synthesis.engines.gpt_sovits.config import SemanticConfig
from synthesis.engines.gpt_sovits.errors import (
    CheckpointMismatchError,
    DecoderFullError,
    InvalidSemanticRowError,
    SegmentTooLongError,
)
from synthesis.engines.gpt_sovits.sampling import Sampler, SamplingOptions, draw, draw_noise

EARLY_STOP_CODES = 2700  # upstream TTS.py: early_stop_num = hz * max_sec = 50 * 54
MAX_STEPS = 1500  # upstream's decoding loop ends here whatever early_stop_num says
MAX_CODES = min(EARLY_STOP_CODES, MAX_STEPS)  # 60 s
MIN_CODES = 11  # upstream: the end code is out of reach while idx < 11
BERT_CHANNELS = 1024
_MAX_POSITIONS = 4000  # of the text, and of prompt and codes: upstream SinePositionalEmbedding makes that many
_NORM_EPS = 1e-5
# oneDNN computes one row with another kernel than many: it is slower than four rows (24 against 20 ms a step, fp32,
# AVX-512) and sums in another order. From two rows on, a row's result does not depend on how many there are.
_FEWEST_ROWS = 4

Attend = Callable[[int, Tensor], Tensor]  # layer, (M, 3C) queries | keys | values -> (M, C)


def state_shapes(config: SemanticConfig) -> dict[str, tuple[int, ...]]:
    """Every entry of the state dict: upstream's keys without the leading `model.`."""
    width = config.width
    shapes: dict[str, tuple[int, ...]] = {
        "bert_proj.weight": (width, BERT_CHANNELS),
        "bert_proj.bias": (width,),
        "ar_text_embedding.word_embeddings.weight": (config.phones, width),
        "ar_text_position.alpha": (1,),
        "ar_audio_embedding.word_embeddings.weight": (config.codes, width),
        "ar_audio_position.alpha": (1,),
        "ar_predict_layer.weight": (config.codes, width),
    }
    for layer in range(config.layers):
        for name, shape in {
            "self_attn.in_proj_weight": (3 * width, width),
            "self_attn.in_proj_bias": (3 * width,),
            "self_attn.out_proj.weight": (width, width),
            "self_attn.out_proj.bias": (width,),
            "linear1.weight": (4 * width, width),
            "linear1.bias": (4 * width,),
            "linear2.weight": (width, 4 * width),
            "linear2.bias": (width,),
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
        }.items():
            shapes[f"h.layers.{layer}.{name}"] = shape
    return shapes


@dataclass(frozen=True, slots=True, eq=False)
class SemanticRow:
    """One utterance to decode. The tensors may be on any device; the generator belongs to this row alone."""

    phones: Tensor  # (S,) int64: the prompt's phones, then the text's
    bert: Tensor  # (1024, S)
    prompt: Tensor  # (P,) int64 codes of the reference; empty without a transcript
    sampling: SamplingOptions
    generator: torch.Generator
    max_codes: int = MAX_CODES
    min_codes: int = MIN_CODES  # the end code cannot come before that many others

    @property
    def positions(self) -> int:
        """What the row needs of a cache. The last code is never fed back."""
        return len(self.phones) + len(self.prompt) + self.max_codes - 1


class FinishReason(enum.StrEnum):
    END = "end"  # the model ended the utterance
    LIMIT = "limit"  # `max_codes` were made


@dataclass(frozen=True, slots=True)
class StepEvent:
    """What one step did to one row: a new code, or the end, or (at the limit) both."""

    row: int  # as `DecodeBatch.admit` numbered it
    code: int | None
    finish: FinishReason | None = None


class SemanticDecoder:
    """The weights, on one device and in one precision. Holds nothing of any utterance.

    In bfloat16 or float16 the linear layers inside the blocks are computed in it; residuals, layer norms, softmax and
    the logits stay float32.
    """

    def __init__(
        self, state: Mapping[str, Tensor], config: SemanticConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.config = config
        self.device = device
        self.dtype = dtype
        # For a single query torch's CPU attention in bfloat16 takes 2.1 times as long as in float32 (8 rows of 370
        # positions, 24 layers: 61 against 29 ms), so there the cache is float32 whatever the weights are.
        self.cache_dtype = torch.float32 if device.type == "cpu" else dtype

        def tensor(key: str) -> Tensor:
            return state[key].to(device=device, dtype=torch.float32)

        def linear(weight: str, bias: str | None, dtype: torch.dtype = torch.float32) -> Linear:
            return Linear(state[weight].to(device=device), None if bias is None else state[bias].to(device), dtype)

        self._text_embedding = tensor("ar_text_embedding.word_embeddings.weight")
        self._code_embedding = tensor("ar_audio_embedding.word_embeddings.weight")
        self._text_alpha = tensor("ar_text_position.alpha")
        self._code_alpha = tensor("ar_audio_position.alpha")
        self._positions = _sinusoids(_MAX_POSITIONS, config.width).to(device)
        self._bert = linear("bert_proj.weight", "bert_proj.bias")
        self._head = linear("ar_predict_layer.weight", None)
        self._blocks = [
            _Block(
                qkv=linear(f"{at}self_attn.in_proj_weight", f"{at}self_attn.in_proj_bias", dtype),
                out=linear(f"{at}self_attn.out_proj.weight", f"{at}self_attn.out_proj.bias", dtype),
                widen=linear(f"{at}linear1.weight", f"{at}linear1.bias", dtype),
                narrow=linear(f"{at}linear2.weight", f"{at}linear2.bias", dtype),
                norm1=(tensor(f"{at}norm1.weight"), tensor(f"{at}norm1.bias")),
                norm2=(tensor(f"{at}norm2.weight"), tensor(f"{at}norm2.bias")),
            )
            for at in (f"h.layers.{layer}." for layer in range(config.layers))
        ]

    @classmethod
    @torch.inference_mode()
    def from_state(
        cls, state: Mapping[str, Tensor], config: SemanticConfig, *, device: torch.device, dtype: torch.dtype
    ) -> SemanticDecoder:
        """`state`: upstream's keys without the leading `model.`, any float dtype. Tensors may be kept, not copied.

        Raises CheckpointMismatchError if any key is missing, unexpected or of another shape.
        """
        wanted = state_shapes(config)
        misshapen = {
            key: (tuple(tensor.shape), wanted[key])
            for key, tensor in state.items()
            if key in wanted and tuple(tensor.shape) != wanted[key]
        }
        missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
        if missing or unexpected or misshapen:
            raise CheckpointMismatchError(
                model="text-to-semantic model", missing=missing, unexpected=unexpected, misshapen=misshapen
            )
        return cls(state, config, device, dtype)

    def embed_text(self, phones: Tensor, bert: Tensor) -> Tensor:
        """phones (S,), bert (1024, S) -> (S, C)."""
        x = F.embedding(phones, self._text_embedding) + self._bert(bert.T.float())
        return x + self._text_alpha * self._positions[: len(phones)]

    def embed_codes(self, codes: Tensor, positions: Tensor | slice) -> Tensor:
        """codes (M,) at `positions` counted from the first prompt code -> (M, C)."""
        return F.embedding(codes, self._code_embedding) + self._code_alpha * self._positions[positions]

    def run_blocks(self, x: Tensor, attend: Attend) -> Tensor:
        """x (M, C) float32 -> (M, C) float32. `attend` sees the layers in order, once each."""
        for layer, block in enumerate(self._blocks):
            x = block(x, layer, attend)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(M, C) -> (M, V) float32."""
        return self._head(x)


class Linear:
    """y = x Wᵀ + b for x (M, in): float32, bfloat16 or float16 weights, x of any float dtype, y of the weights'.

    On a CPU the weights are laid out once as oneDNN wants them, instead of at each call: 1.7 times as fast for 8 rows
    in float32 and in bfloat16. The two operators are those that torch.compile puts in place of a linear layer; where a
    torch does not have them, or the CPU no bfloat16, it is torch's own linear layer.
    """

    __slots__ = ("_bias", "_dtype", "_is_packed", "_weight")

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, is_packed: bool | None = None
    ) -> None:
        self._dtype = dtype
        self._bias = None if bias is None else bias.to(dtype)
        self._is_packed = can_pack(weight.device, dtype) if is_packed is None else is_packed
        weight = weight.to(dtype)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()) if self._is_packed else weight

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        x = x.to(self._dtype)
        if self._is_packed:
            return _packed_linear(x, self._weight, self._bias, relu)
        y = F.linear(x, self._weight, self._bias)
        return y.relu_() if relu else y


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def _packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "relu" if relu else "none", [], "")
    return y


@dataclass(frozen=True, slots=True)
class _Block:
    qkv: Linear  # C -> 3C
    out: Linear
    widen: Linear  # C -> 4C
    narrow: Linear
    norm1: tuple[Tensor, Tensor]  # weight and bias, float32
    norm2: tuple[Tensor, Tensor]

    def __call__(self, x: Tensor, layer: int, attend: Attend) -> Tensor:
        x = _norm(x + self.out(attend(layer, self.qkv(x))), self.norm1)  # (M, C)
        return _norm(x + self.narrow(self.widen(x, relu=True)), self.norm2)


def _norm(x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], *norm, eps=_NORM_EPS)


def _sinusoids(positions: int, width: int) -> Tensor:
    """(positions, width): sine and cosine interleaved, base 10,000 (upstream SinePositionalEmbedding)."""
    steps = torch.arange(0, width, 2, dtype=torch.float32) * -(math.log(10_000.0) / width)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * steps.exp()
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


@dataclass(slots=True, eq=False)
class _Live:
    """A row inside the batch."""

    number: int
    slot: int  # its place in the cache
    row: SemanticRow
    cached: int  # positions in the cache
    made: int = 0  # codes so far
    last_code: int = -1
    first_logits: Tensor | None = field(default=None)  # (V,) from the prefill, until the first step

    @property
    def code_position(self) -> int:
        """Of `last_code`, counted from the first prompt code."""
        return len(self.row.prompt) + self.made - 1


class DecodeBatch:
    """Rows being decoded together. Not thread-safe: one thread calls it.

    Each row owns one place of the cache from its first to its last step and fills it from the front, so joining,
    leaving and finishing move no data. rows: how many fit. positions: how many one row may have, SemanticRow.positions.
    The cache takes 8 * layers * C bytes a position in float32 (98 KB for the released sizes); on a CPU memory is used
    as the positions are reached, and kept.

    draw_noise(noise): fills (B, V) from the exponential distribution, rows in the order they joined. By default each
    row draws from its own generator.
    """

    def __init__(
        self,
        decoder: SemanticDecoder,
        *,
        rows: int,
        positions: int,
        draw_noise: Callable[[Tensor], None] | None = None,
    ) -> None:
        config = decoder.config
        self.decoder = decoder
        self.positions = positions
        self._draw_noise = draw_noise or self._draw_own_noise
        # One (H, positions, D) for each layer, keys and values, and row: a head's history is one run of memory.
        self._cache = torch.empty(
            (config.layers, 2, rows, config.heads, positions, config.head_size),
            dtype=decoder.cache_dtype,
            device=decoder.device,
        )
        self._free = list(range(rows))
        self._numbers = count()
        self._live: list[_Live] = []  # in the order they joined
        self._sampler: Sampler | None = None  # of the rows in `_live`; None when they have changed
        self._seen = torch.zeros((0, config.codes), dtype=torch.bool, device=decoder.device)  # (B, V), as `_live`

    @property
    def live(self) -> int:
        """Rows in the batch."""
        return len(self._live)

    @property
    def free(self) -> int:
        """Rows that may still join."""
        return len(self._free)

    @torch.inference_mode()
    def admit(self, rows: Sequence[SemanticRow]) -> list[int]:
        """Let rows join: reads their text and prompts (the prefill) and returns their numbers, never used twice.

        All of them join or, when this raises, none. Raises DecoderFullError, SegmentTooLongError,
        InvalidSemanticRowError.
        """
        if len(rows) > len(self._free):
            raise DecoderFullError(wanted=len(rows), free=len(self._free))
        for row in rows:
            self._check(row)
        if not rows:
            return []
        device = self.decoder.device
        slots = self._free[: len(rows)]
        joining = [
            _Live(next(self._numbers), slot, row, cached=len(row.phones) + len(row.prompt))
            for slot, row in zip(slots, rows, strict=True)
        ]
        logits = self._prefill(joining)  # (rows, V)
        seen = torch.zeros_like(logits, dtype=torch.bool)
        for live, its_logits, its_seen in zip(joining, logits, seen, strict=True):
            live.first_logits = its_logits
            its_seen[live.row.prompt.to(device)] = True
        del self._free[: len(rows)]
        self._live += joining
        self._seen = torch.cat((self._seen, seen))
        self._sampler = None
        return [live.number for live in joining]

    def step(self) -> list[StepEvent]:
        """One more code (40 ms) for every row, in the order they joined. Rows that finish leave."""
        return self.advance(self.next_logits()) if self._live else []

    def remove(self, number: int) -> None:
        """Let an unfinished row leave. Raises KeyError if it is not in the batch (any more)."""
        index = next((index for index, live in enumerate(self._live) if live.number == number), None)
        if index is None:
            raise KeyError(number)
        self._drop({index})

    @torch.inference_mode()
    def next_logits(self) -> Tensor:
        """(B, V) float32: the first half of a step. Reads the codes of the last step into the cache."""
        decoding = [live for live in self._live if live.first_logits is None]
        fresh = [live.first_logits for live in self._live if live.first_logits is not None]
        parts = [self._decode(decoding)] if decoding else []
        if fresh:  # they joined last, so they stand last
            parts.append(torch.stack(fresh))
        for live in self._live:
            live.first_logits = None
        return torch.cat(parts)

    @torch.inference_mode()
    def advance(self, logits: Tensor) -> list[StepEvent]:
        """The second half: choose a code for each row from (B, V) logits, which are used up."""
        end = self.decoder.config.end_code
        if self._sampler is None:
            self._sampler = Sampler([live.row.sampling for live in self._live], logits.shape[1], logits.device)
        too_early = [live.made < live.row.min_codes for live in self._live]
        if any(too_early):
            logits[:, end].masked_fill_(torch.tensor(too_early, device=logits.device), -math.inf)
        self._sampler.penalise(logits, self._seen)
        noise = torch.empty_like(logits)
        self._draw_noise(noise)
        codes = draw(self._sampler.probabilities(logits), noise)  # (B,)
        self._seen.scatter_(1, codes[:, None], True)
        # The end code being the best after the penalty ends a row too, whatever was drawn (upstream).
        chosen, best = torch.stack((codes, logits.argmax(dim=-1))).tolist()

        events, finished = [], set()
        for index, (live, code, favourite) in enumerate(zip(self._live, chosen, best, strict=True)):
            if end in (code, favourite):
                events.append(StepEvent(live.number, None, FinishReason.END))
                finished.add(index)
                continue
            live.last_code = code
            live.made += 1
            is_last = live.made >= live.row.max_codes
            events.append(StepEvent(live.number, code, FinishReason.LIMIT if is_last else None))
            if is_last:
                finished.add(index)
        if finished:
            self._drop(finished)
        return events

    def _prefill(self, joining: Sequence[_Live]) -> Tensor:
        """Logits (rows, V) of the first code; fills the cache."""
        decoder, device = self.decoder, self.decoder.device
        config = decoder.config
        pieces, spans, masks = [], [], []
        start = 0
        for live in joining:
            prompt = live.row.prompt.to(device)
            texts, codes = len(live.row.phones), len(prompt)
            pieces.append(decoder.embed_text(live.row.phones.to(device), live.row.bert.to(device)))
            pieces.append(decoder.embed_codes(prompt, slice(codes)))
            spans.append((start, start + texts, start + texts + codes))
            # (P, S + P): a code sees all text and the codes up to itself.
            masks.append(torch.ones(codes, texts + codes, dtype=torch.bool, device=device).tril_(texts))
            start += texts + codes

        def attend(layer: int, qkv: Tensor) -> Tensor:
            by_position = qkv.view(1, -1, 3, config.heads, config.head_size)
            q, k, v = by_position.transpose(1, 3).unbind(2)  # (1, H, M, D)
            attended = torch.zeros_like(qkv[:, : config.width])  # (M, C)
            heads = attended.view(1, -1, config.heads, config.head_size).transpose(1, 2)  # (1, H, M, D)
            for live, (text, code, stop), mask in zip(joining, spans, masks, strict=True):
                own_k, own_v = k[:, :, text:stop], v[:, :, text:stop]
                self._cache[layer, 0, live.slot, :, : stop - text] = own_k[0]
                self._cache[layer, 1, live.slot, :, : stop - text] = own_v[0]
                heads[:, :, text:code] = _attention(q[:, :, text:code], k[:, :, text:code], v[:, :, text:code])
                if stop > code:
                    heads[:, :, code:stop] = _attention(q[:, :, code:stop], own_k, own_v, mask)
            return attended

        x = decoder.run_blocks(_at_least(_FEWEST_ROWS, torch.cat(pieces)), attend)  # (M, C)
        last = x[[stop - 1 for _, _, stop in spans]]
        return decoder.logits(_at_least(_FEWEST_ROWS, last))[: len(joining)]

    def _decode(self, decoding: Sequence[_Live]) -> Tensor:
        """Logits (rows, V) after each row's last code, whose keys and values join the cache."""
        decoder, device = self.decoder, self.decoder.device
        config, rows = decoder.config, len(decoding)
        codes = torch.tensor([live.last_code for live in decoding], device=device)
        positions = torch.tensor([live.code_position for live in decoding], device=device)
        newest, keys, values = [], [], []  # [row][layer]
        for live in decoding:
            newest.append(self._cache[:, :, live.slot, :, live.cached].unbind(0))  # (2, H, D)
            live.cached += 1
            known = self._cache[:, :, live.slot, None, :, : live.cached]
            keys.append(known[:, 0].unbind(0))  # (1, H, T, D)
            values.append(known[:, 1].unbind(0))
        no_rows = torch.zeros(max(_FEWEST_ROWS - rows, 0), config.width, dtype=decoder.cache_dtype, device=device)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            by_row = qkv[:rows].to(decoder.cache_dtype).view(rows, 3, config.heads, config.head_size)
            queries = by_row[:, None, 0, :, None].unbind(0)  # (1, H, 1, D)
            attended = []
            for row, (q, new) in enumerate(zip(queries, by_row[:, 1:].unbind(0), strict=True)):
                newest[row][layer].copy_(new)
                attended.append(_attention(q, keys[row][layer], values[row][layer]).view(1, config.width))
            return torch.cat((*attended, no_rows))

        x = decoder.embed_codes(codes, positions)
        x = decoder.run_blocks(_at_least(_FEWEST_ROWS, x), attend)
        return decoder.logits(x)[:rows]

    def _drop(self, indices: set[int]) -> None:
        kept = [index for index in range(len(self._live)) if index not in indices]
        self._free += [self._live[index].slot for index in sorted(indices)]
        self._live = [self._live[index] for index in kept]
        self._seen = self._seen[kept]
        self._sampler = None

    def _draw_own_noise(self, noise: Tensor) -> None:
        draw_noise(noise, [live.row.generator for live in self._live])

    def _check(self, row: SemanticRow) -> None:
        config = self.decoder.config
        if row.phones.ndim != 1 or not len(row.phones) or row.phones.dtype != torch.int64:
            raise InvalidSemanticRowError("A row needs phones, as int64 of one dimension.")
        if row.bert.shape != (BERT_CHANNELS, len(row.phones)):
            raise InvalidSemanticRowError(
                f"BERT features of shape {tuple(row.bert.shape)} do not fit {len(row.phones)} phones."
            )
        if row.prompt.ndim != 1 or row.prompt.dtype != torch.int64:
            raise InvalidSemanticRowError("The prompt must be codes, as int64 of one dimension.")
        for name, ids, limit in (("phones", row.phones, config.phones), ("codes", row.prompt, config.end_code)):
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < limit:
                raise InvalidSemanticRowError(f"The {name} of a row are not all below {limit}.")
        if row.max_codes < 1:
            raise InvalidSemanticRowError("A row must be allowed at least one code.")
        if row.positions > self.positions:
            raise SegmentTooLongError(needed=row.positions, available=self.positions)
        longest = max(len(row.phones), len(row.prompt) + row.max_codes - 1)
        if longest > _MAX_POSITIONS:
            raise SegmentTooLongError(needed=longest, available=_MAX_POSITIONS)


@dataclass(frozen=True, slots=True)
class DecodedCodes:
    codes: list[int]  # without the prompt
    finish: FinishReason


def decode_rows(decoder: SemanticDecoder, rows: Sequence[SemanticRow]) -> list[DecodedCodes]:
    """All rows as one batch, from the first code to the last. Raises as `DecodeBatch.admit`."""
    if not rows:
        return []
    batch = DecodeBatch(decoder, rows=len(rows), positions=max(row.positions for row in rows))
    codes: dict[int, list[int]] = {number: [] for number in batch.admit(rows)}
    finishes: dict[int, FinishReason] = {}
    while batch.live:
        for event in batch.step():
            if event.code is not None:
                codes[event.row].append(event.code)
            if event.finish is not None:
                finishes[event.row] = event.finish
    return [DecodedCodes(made, finishes[number]) for number, made in codes.items()]


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """(1, H, T, D) queries over (1, H, T', D), scaled by 1/√D. mask (T, T'): True where a key is seen."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _at_least(rows: int, x: Tensor) -> Tensor:
    """x (M, C) with rows of zeros below, if it has fewer."""
    return F.pad(x, (0, 0, 0, rows - len(x))) if len(x) < rows else x
