"""The neural engine behind the `SpeechEngine` Protocol: one voice model, shared by all threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import soxr
from torch import Tensor

from synthesis.engines.base import (
    AudioChunk,
    EngineLanguage,
    ReferenceAudio,
    Samples,
    SynthesisOptions,
    VoicePrompt,
)
from synthesis.engines.errors import EngineError, UnsupportedLanguageError, VoicePromptMismatchError
from synthesis.engines.gpt_sovits.config import SAMPLE_RATE_HZ, ModelVersion
from synthesis.engines.gpt_sovits.languages import LANGUAGES, LANGUAGES_V1
from synthesis.engines.gpt_sovits.pipeline import Models, Pipeline, Utterance
from synthesis.engines.gpt_sovits.reference import Reference
from synthesis.engines.gpt_sovits.text.split import halve

ENGINE_NAME = "gpt_sovits"
LONGEST_PHONES = 420  # of one utterance: some 35 s, so that the decoder's 60 s are out of reach
REVISION = 1  # raised when a prepared voice or the sound of a text changes for the same weights


class GptSovitsEngine:
    """A `SpeechEngine`. Segments of all threads are decoded together; what one gets does not depend on the others.

    Sentences are marked by the renderer: a call is one segment, and the model tells no word borders. Its level is the
    reference's own. Speed is the decoder's; pitch is a faster or slower replay of speech that was made as much slower
    or faster, so the throat grows or shrinks with it.
    """

    def __init__(self, models: Models, *, digest: str) -> None:
        """`digest` tells these weights from all others, in at most 48 characters."""
        self._version = f"{REVISION}-{models.version}-{digest}"
        self._languages = LANGUAGES_V1 if models.version is ModelVersion.V1 else LANGUAGES
        self._pipeline = Pipeline(models)
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        return ENGINE_NAME

    @property
    def version(self) -> str:
        return self._version

    @property
    def sample_rate_hz(self) -> int:
        return SAMPLE_RATE_HZ

    @property
    def languages(self) -> Sequence[EngineLanguage]:
        return self._languages

    @property
    def mixed_languages(self) -> frozenset[str]:
        return frozenset(language.code for language in self._languages)

    def prepare_voice(self, clips: Sequence[ReferenceAudio]) -> VoicePrompt:
        """Clips of 3 to 10 s each; their style is averaged. Raises UnusableReferenceError."""
        self._check_open()
        reference = self._pipeline.prepare_voice(clips)
        return reference.to_prompt(engine=self.name, engine_version=self.version)

    def synthesize(
        self, text: str, *, language: str, voice: VoicePrompt, options: SynthesisOptions
    ) -> Iterator[AudioChunk]:
        """Checks its arguments at once; an urgent call's sound comes while its codes are still being decoded.

        The iterator also raises GarbledSpeechError: at once, or in an urgent call at any time.
        """
        self._check_open()
        if language not in {known.code for known in self._languages}:
            raise UnsupportedLanguageError("The model does not speak this language.", language=language)
        if (voice.engine, voice.engine_version) != (self.name, self.version):
            raise VoicePromptMismatchError(
                "The voice was prepared by another engine, version or model.",
                prepared_by=f"{voice.engine} {voice.engine_version}",
            )
        reference = Reference.from_prompt(voice)
        raise_by = 2.0 ** (options.pitch_semitones / 12.0)
        utterances = [
            Utterance(
                phones,
                bert,
                reference,
                speed=options.speed / raise_by,
                seed=options.seed,
                is_urgent=options.is_urgent and number == 0,
            )
            for number, (phones, bert) in enumerate(self._read(text, language, options))
        ]
        return self._speak(utterances, raise_by)

    def close(self) -> None:
        self._closed.set()
        self._pipeline.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise EngineError("The engine is closed.")

    def _read(self, text: str, language: str, options: SynthesisOptions) -> list[tuple[Tensor, Tensor]]:
        """Phones and features of the whole, or of its halves where it is more than the model can say in one go.

        A segment has a few hundred characters, but two hundred digits are a thousand phones.
        """
        read = self._pipeline.read(text, language=language, pronunciations=options.pronunciations)
        halves = halve(text)
        if len(read[0]) <= LONGEST_PHONES or halves is None:
            return [read]
        return [part for half in halves for part in self._read(half, language, options)]

    def _speak(self, utterances: Sequence[Utterance], raise_by: float) -> Iterator[AudioChunk]:
        chunks = (samples for utterance in utterances for samples in self._pipeline.stream(utterance))
        for samples in chunks if raise_by == 1.0 else _replay(chunks, raise_by):
            yield AudioChunk(samples)


def _replay(chunks: Iterator[Samples], faster: float) -> Iterator[Samples]:
    """Play `faster` (above 1) or slower, chunk by chunk: pitch and length change together."""
    resampler = soxr.ResampleStream(SAMPLE_RATE_HZ * faster, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
    for samples in chunks:
        yield resampler.resample_chunk(samples)
    yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
