"""What every speech engine is: a Protocol and the frozen dataclasses that cross it.

Plain Python and NumPy. State of one utterance is passed in, never kept on an engine.
Letters in shapes: `N` audio samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from synthesis.engines.errors import VoicePromptMismatchError

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ReferenceAudio:
    """A few seconds of the voice to imitate: mono, full scale is +-1."""

    samples: Samples  # (N,)
    sample_rate_hz: int
    language: str | None = None
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    """A prepared voice: all that an engine needs to speak in it, and nothing else.

    `to_bytes` is deterministic: equal prompts give equal bytes.
    """

    engine: str
    engine_version: str
    arrays: Mapping[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """One safetensors object, which names engine and version in its metadata."""
        metadata = {"prompt": json.dumps({"engine": self.engine, "engine_version": self.engine_version})}
        arrays = {name: np.asarray(array, order="C") for name, array in self.arrays.items()}
        return safetensors.numpy.save(arrays, metadata)

    @classmethod
    def from_bytes(cls, data: bytes) -> VoicePrompt:
        """Read what `to_bytes` wrote: tensors and text, never code. Raises VoicePromptMismatchError for other bytes."""
        try:
            header_bytes = int.from_bytes(data[:8], "little")
            metadata = json.loads(data[8 : 8 + header_bytes])["__metadata__"]
            header = json.loads(metadata["prompt"])
            arrays = safetensors.numpy.load(data)
            return cls(engine=header["engine"], engine_version=header["engine_version"], arrays=arrays)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise VoicePromptMismatchError("The prepared voice cannot be read.") from error


@dataclass(frozen=True, slots=True)
class Pronunciation:
    """Say `spoken` wherever `written` stands (whole words, case-insensitive)."""

    written: str
    spoken: str


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """How one utterance is spoken. `speed` 1.0 and `pitch_semitones` 0.0 leave the voice as it is."""

    speed: float = 1.0  # 0.5 - 2.0
    pitch_semitones: float = 0.0  # -12 - +12
    seed: int = 0
    pronunciations: tuple[Pronunciation, ...] = ()
    # Somebody waits for this call's first sound. An engine that can may give it before it knows the rest; a defect that
    # it finds later is then an error, where otherwise it would have tried again.
    is_urgent: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a piece of the text sounds.

    `text_start`, `text_end` count code points of the text handed to the call; `start_sample`, `end_sample` count
    samples from the first sample the call yielded, at the engine's rate.
    """

    kind: Literal["word", "sentence"]
    text_start: int
    text_end: int
    start_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """The next samples of an utterance, with the marks that begin in them."""

    samples: Samples  # (N,)
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineLanguage:
    """`code` is the product's code (BCP 47, lower case: `en`, `en-gb`, `zh`, `yue`)."""

    code: str
    name: str  # in English
    tested: bool = field(default=False)  # spoken in this project's own tests


@runtime_checkable
class SpeechEngine(Protocol):
    """Text and a prepared voice in, audio out.

    Implementations are safe to call from several threads at once, and equal arguments give equal bytes.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Changes whenever a prepared voice or the sound of a text would change."""
        ...

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def languages(self) -> Sequence[EngineLanguage]: ...

    @property
    def mixed_languages(self) -> frozenset[str]:
        """Codes of languages that one call speaks together: a sentence in one of them may quote the others."""
        ...

    def prepare_voice(self, clips: Sequence[ReferenceAudio]) -> VoicePrompt:
        """Analyse the reference. Raises UnusableReferenceError."""
        ...

    def synthesize(
        self, text: str, *, language: str, voice: VoicePrompt, options: SynthesisOptions
    ) -> Iterator[AudioChunk]:
        """Speak one segment (at most a few hundred characters).

        Yields float32 chunks at `sample_rate_hz` at the voice's own level (gain is fixed at preparation).
        Raises UnsupportedLanguageError, UnspeakableTextError, VoicePromptMismatchError, EngineCrashedError.
        """
        ...

    def close(self) -> None:
        """End helper processes. A closed engine raises on use; closing twice is allowed."""
        ...
