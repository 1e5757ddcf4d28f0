"""The way from a clip to a voice, and from a text to a wave. All that belongs to one utterance is passed in.

prepare_voice   clip, transcript -> semantic codes, style, phones and BERT features of the prompt
read            text -> phones and their BERT features
synthesize      several utterances at once
stream          one utterance; an urgent one in chunks as its codes come
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from synthesis.engines.base import Pronunciation, ReferenceAudio, Samples
from synthesis.engines.errors import UnspeakableTextError, UnusableReferenceError
from synthesis.engines.gpt_sovits.bert import PhoneText, TextEncoder
from synthesis.engines.gpt_sovits.config import CODE_RATE_HZ, SAMPLE_RATE_HZ, ModelVersion
from synthesis.engines.gpt_sovits.content import ContentEncoder
from synthesis.engines.gpt_sovits.decode_loop import CodeStream, DecodeLoop
from synthesis.engines.gpt_sovits.errors import GarbledSpeechError
from synthesis.engines.gpt_sovits.features import (
    kaldi_fbank,
    prompt_audio,
    reference_spectrogram,
    speaker_audio,
    style_audio,
)
from synthesis.engines.gpt_sovits.guards import CodeLimits, Defect, SilenceWatch, judge_codes, loops
from synthesis.engines.gpt_sovits.reference import Reference
from synthesis.engines.gpt_sovits.sampling import SamplingOptions
from synthesis.engines.gpt_sovits.semantic import MAX_CODES, SemanticDecoder, SemanticRow
from synthesis.engines.gpt_sovits.speaker import SpeakerNetwork
from synthesis.engines.gpt_sovits.text.clear_numbers_zh import clear_numbers
from synthesis.engines.gpt_sovits.text.reading import Reading, TextData, read_mapped_text
from synthesis.engines.gpt_sovits.text.split import collapse_punctuation, split_text
from synthesis.engines.gpt_sovits.vits import Vits
from synthesis.engines.gpt_sovits.vits_stream import VitsStream
from synthesis.engines.pronunciations import apply_pronunciations

ATTEMPTS = 3  # a segment that goes wrong is drawn again with other random numbers, that often altogether
# Of an urgent utterance. The first chunk is short, so that sound starts early; later ones double, so that most of it is
# decoded with nearly all of its context known.
FIRST_CHUNK_CODES = CODE_RATE_HZ
_LOOK_FOR_LOOPS_EVERY = 10  # codes
_CODES, _WAVE = range(2)  # what random numbers are for
_BERT_WIDTH = 1024  # published models; zeros stand for languages without features


@dataclass(frozen=True, slots=True)
class Models:
    """The networks of one voice model, on one device. They keep nothing of what they are called with."""

    version: ModelVersion
    semantic: SemanticDecoder
    vits: Vits
    content: ContentEncoder
    bert: TextEncoder
    speaker: SpeakerNetwork | None  # None where the version has no speaker vector
    text_data: TextData

    @property
    def device(self) -> torch.device:
        return self.vits.device


@dataclass(frozen=True, slots=True)
class Utterance:
    """One text in one voice. Equal utterances sound the same, whoever else is spoken for at the time."""

    phones: Tensor  # (S,) int64, of the text
    bert: Tensor  # (1024, S) float32
    reference: Reference
    speed: float = 1.0
    seed: int = 0
    is_urgent: bool = False  # sound before the last code is known; see SynthesisOptions
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    @property
    def code_limits(self) -> CodeLimits:
        return CodeLimits.for_phones(len(self.phones), most=MAX_CODES)


class Pipeline:
    """The steps, over one model's networks and the loop that decodes codes for everybody."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._loop = DecodeLoop(models.semantic)

    def close(self) -> None:
        self._loop.close()

    # --- voices

    @torch.inference_mode()
    def prepare_voice(self, clips: Sequence[ReferenceAudio]) -> Reference:
        """Learn a voice. The first clip with a transcript, or else the first, leads; the style is the mean of all.

        Each clip has 3 to 10 s. Raises UnusableReferenceError, UnsupportedLanguageError (of a transcript).
        """
        if not clips:
            raise UnusableReferenceError("There is no reference recording.")
        models = self._models
        audios = [style_audio(clip, device=models.device) for clip in clips]
        speakers = None
        if models.speaker is not None:
            speakers = [models.speaker.embed(kaldi_fbank(speaker_audio(audio))[0]) for audio in audios]
        style = models.vits.style([reference_spectrogram(audio)[0] for audio in audios], speakers)
        leading = next((clip for clip in clips if clip.transcript and clip.transcript.strip()), None)
        if leading is None:  # without the words the model cannot be shown how they were spoken
            return Reference(
                codes=torch.zeros(0, dtype=torch.int64),
                phones=torch.zeros(0, dtype=torch.int64),
                bert=torch.zeros(_BERT_WIDTH, 0),
                style=style.cpu(),
            )
        assert leading.transcript is not None
        codes = models.vits.quantise(models.content(prompt_audio(leading, device=models.device)))
        language = (leading.language or "auto").split("-", 1)[0]  # en-gb is read as en
        phones, bert = self.read(leading.transcript, language=language)
        return Reference(codes=codes.cpu(), phones=phones.cpu(), bert=bert.cpu(), style=style.cpu())

    # --- texts

    @torch.inference_mode()
    def read(self, text: str, *, language: str, pronunciations: Sequence[Pronunciation] = ()) -> tuple[Tensor, Tensor]:
        """A text's phones, (S,) int64, and their BERT features, (1024, S) float32: zeros where it is not Chinese.

        `language`: zh, yue, en, ja, ko (each may quote English) or auto. Raises UnspeakableTextError,
        UnsupportedLanguageError.
        """
        mapped = collapse_punctuation(apply_pronunciations(text, pronunciations))
        if language in ("zh", "yue"):
            mapped = clear_numbers(mapped)
        pieces = split_text(mapped, "cut0", english=language == "en")
        readings = [
            read_mapped_text(
                piece, language=language, table=self._models.version.symbol_table, data=self._models.text_data
            )
            for piece in pieces
        ]
        if not readings:
            raise UnspeakableTextError("The text holds nothing that can be spoken.")
        phones = torch.from_numpy(np.concatenate([reading.ids for reading in readings]))
        return phones, torch.cat([self._bert_features(reading) for reading in readings], dim=1)

    def _bert_features(self, reading: Reading) -> Tensor:
        chinese = [
            PhoneText(phones.norm_text, phones.phones_per_character)
            for phones in reading.segments
            if phones.language == "zh" and phones.phones_per_character is not None
        ]
        features = iter(self._models.bert.phone_features_of_all(chinese))
        return torch.cat(
            [
                next(features).cpu() if phones.language == "zh" else torch.zeros(_BERT_WIDTH, len(phones.symbols))
                for phones in reading.segments
            ],
            dim=1,
        )

    # --- speech

    def synthesize(self, utterances: Sequence[Utterance]) -> list[Samples]:
        """Speak several utterances, their codes decoded as one batch; (N,) float32 at 32 kHz for each.

        Each sounds as it does alone. Raises GarbledSpeechError.
        """
        waiting = self._loop.submit(*(self._row(utterance, attempt=0) for utterance in utterances))
        try:
            return [
                np.concatenate(list(self._speak(utterance, first)))
                for utterance, first in zip(utterances, waiting, strict=True)
            ]
        finally:
            for stream in waiting:
                stream.close()

    def stream(self, utterance: Utterance) -> Iterator[Samples]:
        """Speak one utterance: the samples that `synthesize` gives, an urgent one's in chunks as its codes come.

        Raises GarbledSpeechError; what an urgent one yielded before must then be thrown away.
        """
        with self._start(utterance, attempt=0) as first:
            yield from self._speak(utterance, first)

    def _start(self, utterance: Utterance, *, attempt: int) -> CodeStream:
        [stream] = self._loop.submit(self._row(utterance, attempt=attempt))
        return stream

    def _row(self, utterance: Utterance, *, attempt: int) -> SemanticRow:
        reference = utterance.reference
        return SemanticRow(
            phones=torch.cat([reference.phones, utterance.phones]),
            bert=torch.cat([reference.bert, utterance.bert], dim=1),
            prompt=reference.codes,
            sampling=utterance.sampling,
            generator=_generator(utterance.seed, _CODES, attempt),
            max_codes=utterance.code_limits.most,
        )

    def _speak(self, utterance: Utterance, first: CodeStream) -> Iterator[Samples]:
        """The first attempt is under way already. Another is made as long as nothing has been heard."""
        defect = None
        for attempt in range(ATTEMPTS):
            with first if attempt == 0 else self._start(utterance, attempt=attempt) as codes:
                was_heard = False
                try:
                    for samples in self._chunks(utterance, codes, attempt):
                        was_heard = True
                        yield samples
                    return
                except _DefectError as error:
                    defect = error.defect
                    if was_heard:
                        break
        assert defect is not None
        raise GarbledSpeechError(defect)

    def _chunks(self, utterance: Utterance, codes: CodeStream, attempt: int) -> Iterator[Samples]:
        wave = VitsStream(
            self._models.vits,
            utterance.phones,
            utterance.reference.style,
            speed=utterance.speed,
            generator=_generator(utterance.seed, _WAVE, attempt),
        )
        watch = SilenceWatch(SAMPLE_RATE_HZ)
        spoken: list[int] = []
        begun, chunk = 0, FIRST_CHUNK_CODES
        for code in codes:
            spoken.append(code)
            if len(spoken) % _LOOK_FOR_LOOPS_EVERY == 0 and loops(spoken):
                raise _DefectError(Defect.LOOP)
            if utterance.is_urgent and len(spoken) - begun >= chunk:
                yield from self._sound(wave, spoken[begun:], watch, is_last=False)
                begun, chunk = len(spoken), 2 * chunk
        defect = judge_codes(spoken, utterance.code_limits, ended=codes.ended)
        if defect is not None:
            raise _DefectError(defect)
        yield from self._sound(wave, spoken[begun:], watch, is_last=True)
        if watch.defect is not None:
            raise _DefectError(watch.defect)

    def _sound(
        self, wave: VitsStream, codes: Sequence[int], watch: SilenceWatch, *, is_last: bool
    ) -> Iterator[Samples]:
        samples: Samples = wave.push(torch.tensor(codes, dtype=torch.int64), is_last=is_last).cpu().numpy()
        if not np.isfinite(samples).all():
            raise _DefectError(Defect.NOT_A_NUMBER)
        watch.push(samples)
        if len(samples):
            yield samples


class _DefectError(Exception):
    """An attempt went wrong."""

    def __init__(self, defect: Defect) -> None:
        super().__init__(defect)
        self.defect = defect


def _generator(seed: int, purpose: int, attempt: int) -> torch.Generator:
    """Random numbers of one purpose in one attempt, told by the request's seed alone."""
    entropy = np.random.SeedSequence([seed, purpose, attempt]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0]) >> 1)  # torch takes signed numbers
