"""The default engine: espeak-ng speaks, the WORLD vocoder moves the speech to the reference's voice."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed_version

import numpy as np

from synthesis.engines.audio import resample
from synthesis.engines.base import (
    AudioChunk,
    EngineLanguage,
    Mark,
    ReferenceAudio,
    SynthesisOptions,
    VoicePrompt,
)
from synthesis.engines.errors import (
    EngineError,
    UnspeakableTextError,
    UnsupportedLanguageError,
    VoicePromptMismatchError,
)
from synthesis.engines.parametric.conversion import DEFAULT_SETTINGS, convert
from synthesis.engines.parametric.enrolment import prepare_model
from synthesis.engines.parametric.espeak import (
    CALL_SECONDS,
    FASTEST_WORDS_PER_MINUTE,
    SLOWEST_WORDS_PER_MINUTE,
    WORKER_PROGRAM,
    EspeakPool,
    EspeakSpeech,
)
from synthesis.engines.parametric.front_end import SpokenRun, is_speakable, plan_speech
from synthesis.engines.parametric.languages import LANGUAGES, Language
from synthesis.engines.parametric.marks import place_words
from synthesis.engines.parametric.source_bank import (
    BANK_TEXTS,
    ESPEAK_VARIANT,
    FALLBACK_LANGUAGE,
    WORDS_PER_MINUTE,
    SourceBank,
    without_digital_silence,
)
from synthesis.engines.parametric.voice_model import VoiceModel
from synthesis.engines.parametric.world import F64, SAMPLE_RATE_HZ, analyse_clean

ENGINE_NAME = "parametric"
REVISION = 2  # raise it with any change of this package's code that changes a voice or a sound

# Libraries whose release may change a sound.
_SOUNDING_LIBRARIES = ("espeakng-loader", "pyworld-prebuilt", "pyopenjtalk-plus", "soxr")

_FADE_SECONDS = 0.005  # at both ends, so that a segment never begins or ends with a step
_SHORTEST_SECONDS = 0.1  # WORLD needs a few frames


class ParametricEngine:
    """A `SpeechEngine`: see engines/base.py for what the methods promise. Needs no model files and no GPU."""

    def __init__(self, *, espeak_workers: int | None = None, espeak_timeout_seconds: float = CALL_SECONDS) -> None:
        """`espeak_workers`: how many sentences espeak-ng speaks at once; by default one per CPU."""
        self._espeak = EspeakPool(espeak_workers, espeak_timeout_seconds)
        self._bank = SourceBank(self._espeak)
        self._closed = threading.Event()
        self._version = compute_version()

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
        return tuple(EngineLanguage(row.code, row.name, row.tested) for row in LANGUAGES.values())

    @property
    def mixed_languages(self) -> frozenset[str]:
        return frozenset()  # espeak-ng reads a text with one voice

    def prepare_voice(self, clips: Sequence[ReferenceAudio]) -> VoicePrompt:
        self._check_open()
        spoken = next((clip.language for clip in clips if clip.language in LANGUAGES), None)
        model = prepare_model(clips, self._bank.speaker(LANGUAGES[spoken or FALLBACK_LANGUAGE]))
        return VoicePrompt(engine=self.name, engine_version=self.version, arrays=model.to_arrays())

    def synthesize(
        self, text: str, *, language: str, voice: VoicePrompt, options: SynthesisOptions
    ) -> Iterator[AudioChunk]:
        """Checks its arguments at once; the work is done when the first (and only) chunk is asked for."""
        self._check_open()
        if language not in LANGUAGES:
            raise UnsupportedLanguageError("The engine does not speak this language.", language=language)
        if not is_speakable(text):
            raise UnspeakableTextError("The text holds nothing that can be spoken.")
        if (voice.engine, voice.engine_version) != (self.name, self.version):
            raise VoicePromptMismatchError(
                "The voice was prepared by another engine or version.",
                prepared_by=f"{voice.engine} {voice.engine_version}",
            )
        try:
            model = VoiceModel.from_arrays(voice.arrays)
        except KeyError as error:
            raise VoicePromptMismatchError("The prepared voice is incomplete.", missing=str(error)) from error
        return self._speak(text, LANGUAGES[language], model, options)

    def close(self) -> None:
        self._closed.set()
        self._espeak.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise EngineError("The engine is closed.")

    def _speak(
        self, text: str, language: Language, model: VoiceModel, options: SynthesisOptions
    ) -> Iterator[AudioChunk]:
        runs = plan_speech(text, language, options.pronunciations)
        wanted_rate = WORDS_PER_MINUTE * model.rate_ratio * options.speed
        possible_rate = min(max(wanted_rate, SLOWEST_WORDS_PER_MINUTE), FASTEST_WORDS_PER_MINUTE)
        rate = round(possible_rate)
        stretch = possible_rate / wanted_rate  # 1.0, but for what espeak-ng cannot do: that is left to WORLD
        speeches = [self._espeak.speak(run.text, run.language.espeak_voice + ESPEAK_VARIANT, rate) for run in runs]
        source = _join(speeches)
        if source is None:
            raise UnspeakableTextError("The text holds nothing that can be spoken.")
        samples = convert(
            source,
            analyse_clean(source),
            model,
            self._bank.pitch(language),
            is_tonal=language.tonal,
            pitch_semitones=options.pitch_semitones,
            stretch=stretch,
            seed=options.seed,
        )
        _fade_ends(samples)
        marks = _place_marks(text, runs, speeches, stretch, len(samples))
        yield AudioChunk(samples.astype(np.float32), marks)


def compute_version() -> str:
    """Names everything that decides how a voice sounds: revision, worker program, tables, settings, libraries."""
    digest = hashlib.sha256(WORKER_PROGRAM.read_bytes())
    digest.update(repr((ESPEAK_VARIANT, tuple(LANGUAGES.values()), sorted(BANK_TEXTS.items()))).encode())
    digest.update(repr(DEFAULT_SETTINGS).encode())
    digest.update(repr([(name, installed_version(name)) for name in _SOUNDING_LIBRARIES]).encode())
    return f"{REVISION}+{digest.hexdigest()[:12]}"


def _join(speeches: Sequence[EspeakSpeech]) -> F64 | None:
    """The runs behind one another at 24 kHz, never digitally silent; None where espeak-ng found nothing to say."""
    if not any(speech.samples.any() for speech in speeches):
        return None
    joined = np.concatenate([speech.samples for speech in speeches]) / 32768.0
    shortest = round(_SHORTEST_SECONDS * speeches[0].sample_rate_hz)
    joined = np.pad(joined, (0, max(0, shortest - len(joined))))
    return without_digital_silence(resample(joined, speeches[0].sample_rate_hz, SAMPLE_RATE_HZ))


def _fade_ends(samples: F64) -> None:
    count = min(len(samples) // 2, round(_FADE_SECONDS * SAMPLE_RATE_HZ))
    ramp = np.linspace(0.0, 1.0, count)
    samples[:count] *= ramp
    samples[len(samples) - count :] *= ramp[::-1]


def _place_marks(
    text: str, runs: Sequence[SpokenRun], speeches: Sequence[EspeakSpeech], stretch: float, sample_count: int
) -> tuple[Mark, ...]:
    """One sentence mark over all of the text, then the words, in samples of the result."""
    first = len(text) - len(text.lstrip())
    marks = [Mark("sentence", first, max(first, len(text.rstrip())), 0, sample_count)]
    offset = 0
    for run, speech in zip(runs, speeches, strict=True):
        scale = SAMPLE_RATE_HZ / speech.sample_rate_hz * stretch
        for word in place_words(run.words, speech.events, len(speech.samples)):
            start, end = (
                min(sample_count, round((offset + sample) * scale)) for sample in (word.start_sample, word.end_sample)
            )
            marks.append(Mark("word", word.text_start, word.text_end, start, end))
        offset += len(speech.samples)
    return tuple(marks)
