"""From a request to sound: segments, engine, one joined line, encoded bytes. The same in a worker and in the function.

Nothing here holds more than one segment's sound: a book of 100,000 characters needs no more memory than a page.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from operator import itemgetter
from typing import BinaryIO

import numpy as np
import soxr

from synthesis.contracts import RenderedChunk, RenderRequest, RenderResult, TextMark
from synthesis.encoding import open_encoder
from synthesis.engines.base import Mark, Pronunciation, Samples, SpeechEngine, SynthesisOptions, VoicePrompt
from synthesis.engines.errors import EngineError, UnspeakableTextError
from synthesis.joining import EdgeTrimmer, Joiner, limit_peaks
from synthesis.segmentation import PAUSE_MS, Pause, Run, segment_text

_HASH_BLOCK_BYTES = 1 << 20
_BLOCK_SECONDS = 0.5  # the most sound between two looks at `is_cancelled`, and in one chunk


class RenderCancelledError(Exception):
    """`is_cancelled` said yes. What was encoded so far has been given out; the artifact is incomplete."""


def never() -> bool:
    return False


def render(
    request: RenderRequest,
    *,
    engine: SpeechEngine,
    voice: VoicePrompt,
    artifact: BinaryIO,
    is_cancelled: Callable[[], bool] = never,
) -> Rendering:
    """Speak `request` with `engine` in `voice`, a chunk each time one is asked for.

    `artifact`: empty, readable, writable and seekable; holds the finished file once the last chunk was given out.
    Equal requests on equal engines give equal bytes. Iterating raises EngineError (UnspeakableTextError where nothing
    can be said), EncodingError, RenderCancelledError.
    """
    return Rendering(request, engine=engine, voice=voice, artifact=artifact, is_cancelled=is_cancelled)


class Rendering(Iterator[RenderedChunk]):
    """One rendering under way. `result` is there with the last chunk; `close` gives up early.

    Marks come as soon as their end is known: words with the chunk they sound in or an earlier one of their segment,
    sentences with the last chunk of the segment they end in.
    """

    def __init__(
        self,
        request: RenderRequest,
        *,
        engine: SpeechEngine,
        voice: VoicePrompt,
        artifact: BinaryIO,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._request = request
        self._engine = engine
        self._voice = voice
        self._artifact = artifact
        self._is_cancelled = is_cancelled
        self._options = SynthesisOptions(
            speed=request.speed,
            pitch_semitones=request.pitch_semitones,
            seed=request.seed,  # the same for every segment: another seed is another tone of voice
            pronunciations=tuple(Pronunciation(written, spoken) for written, spoken in request.pronunciations),
        )
        self._joiner = Joiner(engine.sample_rate_hz)
        self._result: RenderResult | None = None
        self._chunks = self._render()

    def __next__(self) -> RenderedChunk:
        return next(self._chunks)

    def close(self) -> None:
        """End the engine's call. Harmless after the end."""
        self._chunks.close()

    @property
    def result(self) -> RenderResult:
        if self._result is None:
            raise RuntimeError("The rendering has not come to its end.")
        return self._result

    def _render(self) -> Generator[RenderedChunk]:
        request, engine = self._request, self._engine
        segmented = segment_text(
            request.text,
            request.language,
            available_languages=[language.code for language in engine.languages],
            mixed_languages=engine.mixed_languages,
            pronunciations=request.pronunciations,
        )
        segments = segmented.segments
        if not segments:
            raise UnspeakableTextError("The text holds no letter or digit.")
        delivery = _Delivery(request, engine.sample_rate_hz, segmented.sentences, self._artifact)
        with closing(delivery):
            unspeakable: UnspeakableTextError | None = None
            has_sound = False
            for index, segment in enumerate(segments):
                spoken_until = None
                for run in segment.runs:
                    try:
                        for samples, marks in self._speak(run):
                            spoken_until = self._joiner.position
                            delivery.add_marks(marks)
                            yield from self._send(samples, delivery, index)
                    except UnspeakableTextError as error:
                        unspeakable = error  # one odd stretch does not spoil the rest
                    if spoken_until is not None and run is not segment.runs[-1]:
                        yield from self._send(self._joiner.cross_fade(), delivery, index)
                has_sound = has_sound or spoken_until is not None
                delivery.end_segment(segment.text_end, self._joiner.position if spoken_until is None else spoken_until)
                if spoken_until is not None and index < len(segments) - 1:
                    yield from self._send(self._join(segment.pause), delivery, index)
            if not has_sound:
                raise unspeakable or EngineError("The engine made no sound for this text.")
            last = delivery.finish(self._joiner.pause(0), len(segments) - 1)
            self._result = RenderResult(
                audio_frames=delivery.audio_frames,
                sample_rate_hz=request.sample_rate_hz,
                size_bytes=self._artifact.seek(0, io.SEEK_END),
                sha256=_sha256(self._artifact),
                segments=len(segments),
                engine=engine.name,
                engine_version=engine.version,
                marks=delivery.marks,
            )
        yield last

    def _send(self, samples: Samples, delivery: _Delivery, segment_index: int) -> Iterator[RenderedChunk]:
        block = round(_BLOCK_SECONDS * self._engine.sample_rate_hz)
        for start in range(0, len(samples), block):
            self._raise_if_cancelled()
            chunk = delivery.send(samples[start : start + block], segment_index)
            if chunk is not None:
                yield chunk

    def _join(self, pause: Pause) -> Samples:
        if pause is Pause.NONE:
            return self._joiner.cross_fade()
        return self._joiner.pause(round(PAUSE_MS[pause] / self._request.speed * self._engine.sample_rate_hz / 1000))

    def _speak(self, run: Run) -> Iterator[tuple[Samples, list[TextMark]]]:
        """The joined samples of one call of the engine that are ready, and the marks whose end is known by then.

        Marks are timed in the finished sound. Nothing is yielded for a call without sound.
        """
        self._raise_if_cancelled()
        begin = self._joiner.position
        kept = 0
        trimmer = EdgeTrimmer(self._engine.sample_rate_hz)
        marks = _RunMarks(run, begin, self._engine.sample_rate_hz)
        # The same whether somebody listens or not: equal requests give equal sound.
        options = replace(self._options, is_urgent=begin == 0)
        chunks = self._engine.synthesize(run.text, language=run.language, voice=self._voice, options=options)
        try:
            for chunk in chunks:
                self._raise_if_cancelled()
                if not np.isfinite(chunk.samples).all():
                    raise EngineError("The engine gave samples that are not numbers.", engine=self._engine.name)
                samples = trimmer.push(chunk.samples.astype(np.float32, copy=False))
                marks.add(chunk.marks)
                if trimmer.has_sound:
                    kept += len(samples)
                    yield self._joiner.push(samples), marks.settled(kept, trimmer.trimmed_before)
        finally:
            if isinstance(chunks, Generator):
                chunks.close()
        if trimmer.has_sound:
            samples = trimmer.finish()
            yield self._joiner.push(samples), marks.rest(kept + len(samples), trimmer.trimmed_before)

    def _raise_if_cancelled(self) -> None:
        if self._is_cancelled():
            raise RenderCancelledError


class _RunMarks:
    """Marks of one engine call on their way from its own samples and text to the request's."""

    def __init__(self, run: Run, begin: int, sample_rate_hz: int) -> None:
        self._run = run
        self._begin = begin
        self._rate_hz = sample_rate_hz
        self._words: list[Mark] = []
        self._sentences: list[Mark] = []
        self._has_words = False

    def add(self, marks: Sequence[Mark]) -> None:
        for mark in marks:
            (self._words if mark.kind == "word" else self._sentences).append(mark)
        self._has_words = self._has_words or bool(self._words)

    def settled(self, kept: int, trimmed_before: int) -> list[TextMark]:
        """The words that end within the `kept` samples after `trimmed_before`."""
        waiting, self._words = self._words, []
        ready = []
        for mark in waiting:
            if mark.end_sample - trimmed_before <= kept:
                ready.append(self._timed(mark, kept, trimmed_before))
            else:
                self._words.append(mark)
        return ready

    def rest(self, kept: int, trimmed_before: int) -> list[TextMark]:
        """The words not given out yet; from an engine without word marks its sentences, or else the whole run."""
        whole = Mark("sentence", 0, len(self._run.text), 0, kept + trimmed_before)
        rest = self._words if self._has_words else self._sentences or [whole]
        return [self._timed(mark, kept, trimmed_before) for mark in rest]

    def _timed(self, mark: Mark, kept: int, trimmed_before: int) -> TextMark:
        start, end = (
            round((self._begin + min(max(0, sample - trimmed_before), kept)) * 1000 / self._rate_hz)
            for sample in (mark.start_sample, mark.end_sample)
        )
        text_start, text_end = self._run.source_span(mark.text_start, mark.text_end)
        return TextMark(mark.kind, text_start, text_end, start, max(start, end))


class _Delivery:
    """The way from joined samples to chunks: rate, ceiling, encoding; and what of the text each chunk completes."""

    def __init__(
        self,
        request: RenderRequest,
        engine_rate_hz: int,
        sentences: Sequence[tuple[int, int]],
        artifact: BinaryIO,
    ) -> None:
        self._rates_hz = engine_rate_hz, request.sample_rate_hz
        self._resampler = (
            soxr.ResampleStream(engine_rate_hz, request.sample_rate_hz, 1, dtype="float32", quality="HQ")
            if engine_rate_hz != request.sample_rate_hz
            else None
        )
        # Equal requests, equal bytes: the serial that Ogg wants at random is taken from the request.
        serial = zlib.crc32(repr(request).encode())
        self._encoder = open_encoder(request.audio_format, request.sample_rate_hz, artifact, stream_serial=serial)
        self._sentences = sentences
        self._sounding: dict[int, tuple[int, int]] = {}  # sentence -> milliseconds from its first word to its last
        self._segment_ends: deque[tuple[int, int]] = deque()  # (frame, text_end) of segments not yet all in the bytes
        self._text_chars = len(request.text)
        self._text_end = 0
        self._undelivered: list[TextMark] = []
        self._delivered: list[TextMark] = []

    @property
    def audio_frames(self) -> int:
        return self._encoder.frames

    @property
    def marks(self) -> tuple[TextMark, ...]:
        """All marks delivered, in the order of the text; a sentence before its words."""
        return tuple(sorted(self._delivered, key=lambda mark: (mark.text_start, -mark.text_end)))

    def add_marks(self, marks: Sequence[TextMark]) -> None:
        """Deliver words with the next chunk, and note when sentences sound."""
        for mark in marks:
            if mark.kind == "word":
                self._undelivered.append(mark)
            index = bisect_right(self._sentences, mark.text_start, key=itemgetter(1))
            while index < len(self._sentences) and self._sentences[index][0] < mark.text_end:
                start_ms, end_ms = self._sounding.get(index, (mark.start_ms, mark.end_ms))
                self._sounding[index] = min(start_ms, mark.start_ms), max(end_ms, mark.end_ms)
                index += 1

    def end_segment(self, text_end: int, position: int) -> None:
        """The text up to `text_end` sounds before the engine-rate sample `position`."""
        engine_rate_hz, rate_hz = self._rates_hz
        self._segment_ends.append((-(-position * rate_hz // engine_rate_hz), text_end))
        for index in sorted(self._sounding):
            start, end = self._sentences[index]
            if end <= text_end:
                self._undelivered.append(TextMark("sentence", start, end, *self._sounding.pop(index)))

    def send(self, samples: Samples, segment_index: int) -> RenderedChunk | None:
        """The next chunk, or None while the encoder keeps the samples."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        data = self._encoder.write(limit_peaks(samples))
        if not data:
            return None
        while self._segment_ends and self._segment_ends[0][0] <= self._encoder.decodable_frames:
            self._text_end = self._segment_ends.popleft()[1]
        return self._chunk(data, segment_index)

    def finish(self, samples: Samples, segment_index: int) -> RenderedChunk:
        """The last chunk; the artifact is complete."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=True)
        data = self._encoder.write(limit_peaks(samples)) + self._encoder.finish()
        self._text_end = self._text_chars
        return self._chunk(data, segment_index)

    def close(self) -> None:
        self._encoder.close()

    def _chunk(self, data: bytes, segment_index: int) -> RenderedChunk:
        marks, self._undelivered = tuple(self._undelivered), []
        self._delivered += marks
        return RenderedChunk(data, segment_index, self._text_end, marks)


def _sha256(artifact: BinaryIO) -> str:
    digest = hashlib.sha256()
    artifact.seek(0)
    while block := artifact.read(_HASH_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
