"""Text encoder: Chinese RoBERTa (BERT's network), from characters to one vector for each phone.

Our own network over Hugging Face's `config.json`, tensor names and vocabulary files, for the reason content.py gives.
The tokenizer is a table: the Chinese front end's normal form is Hanzi and punctuation only, one token each.
Letters in shapes: B batch, S tokens, C channels, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthesis.engines.gpt_sovits.errors import ModelFileError, UnsupportedModelError
from synthesis.engines.gpt_sovits.loading import Table, drop, load_strictly

UNUSED_LAYERS = 2  # upstream reads hidden_states[-3]: the last two layers' work is thrown away
MAX_BATCH_TOKENS = 4096  # of one run, padding included: 70 MB of feed-forward activations in float32

LEFT_OUT = {
    "cls.": "the masked-word and next-sentence heads; we stop at a hidden layer",
    "pooler.": "one vector for the whole sentence; unused",
    "embeddings.position_ids": "0, 1, 2, ...: a buffer that old versions of transformers saved",
}

ONLY_SUPPORTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes of BERT. `layers` are those we run: the file has two more."""

    width: int
    heads: int
    layers: int
    hidden: int  # of the feed-forward blocks
    vocabulary: int
    positions: int
    norm_epsilon: float
    token_types: int

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any]) -> Self:
        """From `config.json`. Raises UnsupportedModelError for a BERT of another build."""
        for option, wanted in ONLY_SUPPORTED.items():
            if config.get(option, wanted) != wanted:
                raise UnsupportedModelError("text encoder", option=option, found=config[option], wanted=wanted)
        return cls(
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            layers=int(config["num_hidden_layers"]) - UNUSED_LAYERS,
            hidden=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            norm_epsilon=float(config["layer_norm_eps"]),
            token_types=int(config.get("type_vocab_size", 2)),
        )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token ids of single characters, and of the four marks that BERT needs."""

    characters: Mapping[str, int]
    pad: int
    unknown: int
    start: int  # [CLS]
    end: int  # [SEP]
    lower_case: bool = True

    @classmethod
    def from_tokens(cls, tokens: Mapping[str, int], *, lower_case: bool = True) -> Self:
        """`tokens`: the whole vocabulary. Raises ModelFileError when a mark is missing."""
        marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
        missing = [mark for mark in marks if mark not in tokens]
        if missing:
            raise ModelFileError(f"The vocabulary has no {', '.join(missing)}.", missing=missing)
        pad, unknown, start, end = (tokens[mark] for mark in marks)
        characters = {token: index for token, index in tokens.items() if len(token) == 1}
        return cls(characters, pad=pad, unknown=unknown, start=start, end=end, lower_case=lower_case)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a `vocab.txt` (one token a line) or a `tokenizer.json`. Raises ModelFileError."""
        try:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".txt":
                # Not splitlines: the vocabulary may hold characters that it takes for line ends.
                lines = text.split("\n")
                return cls.from_tokens({token.rstrip("\r"): index for index, token in enumerate(lines) if token})
            tokenizer = json.loads(text)
            normalizer = tokenizer.get("normalizer") or {}
            tokens = {str(token): int(index) for token, index in tokenizer["model"]["vocab"].items()}
            return cls.from_tokens(tokens, lower_case=bool(normalizer.get("lowercase", True)))
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise ModelFileError(f"{path.name} is not a vocabulary of Hugging Face's.", file=path.name) from error

    def ids(self, text: str) -> list[int]:
        """One id for each character of `text`, whatever it is; without [CLS] and [SEP]."""
        return [self.characters.get(self._normal(character), self.unknown) for character in text]

    def _normal(self, character: str) -> str:
        """As BERT's normalizer: accents go together with capitals."""
        if not self.lower_case:
            return character
        decomposed = unicodedata.normalize("NFD", character)
        return "".join(part for part in decomposed if unicodedata.category(part) != "Mn").lower()


@dataclass(frozen=True, slots=True)
class PhoneText:
    """A text in the Chinese front end's normal form, and how many phones each of its characters has."""

    norm_text: str
    phones_per_character: Sequence[int]


class TextEncoder(nn.Module):
    """BERT up to the layer that phones are told by, with its vocabulary. Modules carry Hugging Face's names."""

    def __init__(self, config: BertConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": _Layers(config)})

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Tensor],
        config: Mapping[str, Any],
        vocabulary: Vocabulary,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """From the state dict of BertForMaskedLM or BertModel (prefix `bert.` or none) and its `config.json`.

        The last two layers and the heads are left out. LayerNorms may be spelled gamma and beta, as files converted
        from TensorFlow do. Half precision moves the output, root mean square: bfloat16 by 2 %, float16 by 0.25 %
        (24 layers, untrained weights). Raises UnsupportedModelError, CheckpointMismatchError.
        """
        sizes = BertConfig.from_hugging_face(config)
        with torch.device("meta"):
            model = cls(sizes, vocabulary)
        unused = {f"encoder.layer.{sizes.layers + i}.": "above the layer that is read" for i in range(UNUSED_LAYERS)}
        kept = drop({key.removeprefix("bert."): tensor for key, tensor in state.items()}, LEFT_OUT | unused)
        load_strictly(model, {_modern_name(key): tensor for key, tensor in kept.items()}, model="text encoder")
        return model.to(device, dtype).eval().requires_grad_(requires_grad=False)

    def phone_features(self, text: PhoneText) -> Tensor:
        """(C, phones) float32: each character's vector, repeated for each of its phones."""
        return self.phone_features_of_all([text])[0]

    def phone_features_of_all(self, texts: Sequence[PhoneText]) -> list[Tensor]:
        """`phone_features` of several texts in few runs; each result is what the text gives alone.

        A text longer than the network's positions (510 characters) is read in windows that do not see each other.
        """
        windows = [window for text in texts for window in self._windows(text.norm_text)]
        rows = iter(self._rows(windows))  # one (characters, C) for each window
        features = []
        for text in texts:
            assert len(text.norm_text) == len(text.phones_per_character)
            parts = [next(rows) for _ in self._windows(text.norm_text)]
            counts = torch.tensor(text.phones_per_character, dtype=torch.int64, device=self.device)
            characters = torch.cat(parts) if parts else torch.zeros(0, self.config.width, device=self.device)
            features.append(characters.repeat_interleave(counts, dim=0).T)
        return features

    @property
    def device(self) -> torch.device:
        return self.embeddings.LayerNorm.weight.device

    def _windows(self, norm_text: str) -> list[str]:
        """`norm_text` in as few pieces as fit, of nearly equal length."""
        length, longest = len(norm_text), self.config.positions - 2  # [CLS] and [SEP]
        pieces = -(-length // longest)
        return [norm_text[length * i // pieces : length * (i + 1) // pieces] for i in range(pieces)]

    def _rows(self, windows: Sequence[str]) -> list[Tensor]:
        """Run windows of like length together; (characters, C) float32 for each, in the order given."""
        rows: dict[int, Tensor] = {}
        waiting = sorted(range(len(windows)), key=lambda index: len(windows[index]), reverse=True)
        while waiting:
            taken = max(1, MAX_BATCH_TOKENS // (len(windows[waiting[0]]) + 2))
            batch, waiting = waiting[:taken], waiting[taken:]
            hidden = self._run([windows[index] for index in batch])
            for index, row in zip(batch, hidden, strict=True):
                rows[index] = row[1 : len(windows[index]) + 1]
        return [rows[index] for index in range(len(windows))]

    def _run(self, windows: Sequence[str]) -> Tensor:
        """Of B windows, the longest first: (B, S, C) with [CLS] and [SEP], undefined at padding."""
        tokens = torch.full((len(windows), len(windows[0]) + 2), self.vocabulary.pad)
        for row, window in zip(tokens, windows, strict=True):
            ids = [self.vocabulary.start, *self.vocabulary.ids(window), self.vocabulary.end]
            row[: len(ids)] = torch.tensor(ids)
        mask = None
        if len(windows[-1]) < len(windows[0]):
            lengths = torch.tensor([len(window) + 2 for window in windows])
            mask = (torch.arange(tokens.shape[1]) < lengths[:, None])[:, None, None].to(self.device)
        hidden: Tensor = self(tokens.to(self.device), mask)
        return hidden

    @torch.no_grad()
    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (B, S) int64; mask (B, 1, 1, S), True where a token may be seen. Returns (B, S, C) float32."""
        x: Tensor = self.encoder["layer"](self.embeddings(tokens), mask)
        return x.float()


def _modern_name(key: str) -> str:
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


class _Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = Table("weight", config.vocabulary, config.width)
        self.position_embeddings = Table("weight", config.positions, config.width)
        self.token_type_embeddings = Table("weight", config.token_types, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S) to (B, S, C). One sentence only: every token is of type 0."""
        words, positions, types = (
            table.get_parameter("weight")
            for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings)
        )
        position = positions[: tokens.shape[1]] + types[0]
        normed: Tensor = self.LayerNorm(functional.embedding(tokens, words) + position)
        return normed


class _Layers(nn.ModuleList):
    def __init__(self, config: BertConfig) -> None:
        super().__init__(_Layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, S, C); mask (B, 1, 1, S), True where a token may be seen."""
        for layer in self:
            x = layer(x, mask)
        return x


class _Layer(nn.Module):
    """Post-norm: attention, then a feed-forward block."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _Attention(config), "output": _Output(config, config.width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.width, config.hidden)})
        self.output = _Output(config, config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        wide = functional.gelu(self.intermediate["dense"](x))
        out: Tensor = self.output(wide, x)
        return out


class _Attention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, S, D)
            for projection in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return attended.transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """Back to the width, plus what came in, normalised."""

    def __init__(self, config: BertConfig, wide: int) -> None:
        super().__init__()
        self.dense = nn.Linear(wide, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.dense(x) + residual)
        return normed
