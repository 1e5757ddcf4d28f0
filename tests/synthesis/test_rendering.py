from __future__ import annotations

import hashlib
import io
import tempfile
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from synthesis.contracts import SAMPLE_RATES_HZ, AudioFormat, RenderedChunk, RenderRequest, RenderResult
from synthesis.engines.base import Samples
from synthesis.engines.errors import EngineError, UnspeakableTextError
from synthesis.joining import limit_peaks
from synthesis.rendering import RenderCancelledError, render
from synthesis.segmentation import PAUSE_MS, Pause
from tests.synthesis.engines import VOICE, ToneEngine

TEXT = (
    "The first sentence is this one. 我用 Python 写程序。\n\n"
    "A new paragraph begins here, and it goes on for a good while."
)
EVERY_FORMAT = [(audio_format, rate) for audio_format, rates in SAMPLE_RATES_HZ.items() for rate in rates]


def request_for(text: str = TEXT, **changes: object) -> RenderRequest:
    request = RenderRequest(text, "auto", AudioFormat.PCM, 24_000)
    return replace(request, **changes)  # type: ignore[arg-type]


def rendered(
    request: RenderRequest, engine: ToneEngine | None = None
) -> tuple[list[RenderedChunk], bytes, RenderResult]:
    artifact = io.BytesIO()
    rendering = render(request, engine=engine or ToneEngine(), voice=VOICE, artifact=artifact)
    chunks = list(rendering)
    return chunks, artifact.getvalue(), rendering.result


def pcm(data: bytes) -> Samples:
    return np.frombuffer(data, dtype="<i2").astype(np.float32) / np.float32(32767)


@pytest.mark.parametrize(("audio_format", "sample_rate_hz"), EVERY_FORMAT)
def test_result_describes_the_artifact(audio_format, sample_rate_hz):
    request = request_for(audio_format=audio_format, sample_rate_hz=sample_rate_hz)
    chunks, artifact, result = rendered(request)
    assert result.size_bytes == len(artifact)
    assert result.sha256 == hashlib.sha256(artifact).hexdigest()
    assert (result.engine, result.engine_version, result.segments) == ("tone", "1", 3)
    if audio_format is AudioFormat.PCM:
        assert 2 * result.audio_frames == len(artifact) == sum(len(chunk.data) for chunk in chunks)
    else:
        with soundfile.SoundFile(io.BytesIO(artifact)) as file:
            assert (file.frames, file.samplerate) == (result.audio_frames, sample_rate_hz)
    at_engine_rate = rendered(request_for())[2]
    assert result.audio_seconds == pytest.approx(at_engine_rate.audio_seconds, abs=0.001)
    assert rendered(request)[:2] == (chunks, artifact)


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_text_end_grows_to_the_whole_text_by_segments(audio_format):
    chunks, _, _ = rendered(request_for(audio_format=audio_format))
    ends = [chunk.text_end for chunk in chunks]
    assert ends == sorted(ends)
    assert set(ends) == {0, 32, 48, len(TEXT)}
    assert ends[-1] == len(TEXT)
    assert ends[-2] < len(TEXT)
    assert [chunk.segment_index for chunk in chunks] == sorted(chunk.segment_index for chunk in chunks)
    assert all(chunk.data for chunk in chunks)


def test_only_the_first_call_is_urgent():
    engine = ToneEngine()
    rendered(request_for(), engine)
    assert len(engine.urgent_calls) > 2
    assert engine.urgent_calls == [True] + [False] * (len(engine.urgent_calls) - 1)


def test_text_end_is_not_ahead_of_the_sound():
    chunks, _, result = rendered(request_for())
    last_word_ms = {32: "one", 48: "写程序"}
    for text_end, word in last_word_ms.items():
        sent = 0
        for chunk in chunks:
            sent += len(chunk.data) // 2
            if chunk.text_end >= text_end:
                break
        mark = next(
            mark for mark in result.marks if mark.kind == "word" and TEXT[mark.text_start : mark.text_end] == word
        )
        assert sent * 1000 / 24_000 >= mark.end_ms


@pytest.mark.parametrize(("audio_format", "delay_ms"), [(AudioFormat.OPUS, 0), (AudioFormat.MP3, 1105 / 24)])
def test_text_end_waits_for_what_the_encoder_keeps(audio_format, delay_ms):
    text = "word " * 60  # cut between words: no pause pushes the end of a segment out of the encoder
    chunks, _, result = rendered(request_for(text, audio_format=audio_format))
    ends = sorted({chunk.text_end for chunk in chunks} - {0, len(text)})
    assert len(ends) == result.segments - 1 > 0
    for text_end in ends:
        data = b"".join(chunk.data for chunk in chunks if chunk.text_end < text_end)
        data += next(chunk.data for chunk in chunks if chunk.text_end == text_end)
        last_word = max(mark.end_ms for mark in result.marks if mark.kind == "word" and mark.text_end <= text_end)
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            assert len(file.read()) / 24 - delay_ms >= last_word


def test_the_first_sound_comes_before_the_second_segment_is_asked_for():
    engine = ToneEngine()
    rendering = render(request_for(), engine=engine, voice=VOICE, artifact=io.BytesIO())
    assert engine.calls == []
    first = next(rendering)
    assert first.data
    assert engine.calls == [("en-us", "The first sentence is this one.")]
    assert len(engine.calls[0][1]) <= 80
    rendering.close()
    assert engine.closed_calls == 1


@pytest.mark.parametrize("sample_rate_hz", [8_000, 24_000, 44_100])
def test_no_join_clicks(sample_rate_hz):
    text = TEXT + " " + "word " * 60  # pauses, languages within a sentence, cuts between words
    engine = ToneEngine(edge_seconds=0.0)  # begins and ends at full level: the worst case
    samples = pcm(rendered(request_for(text, sample_rate_hz=sample_rate_hz), engine)[1])
    steepest_of_the_sine = 0.5 * 2 * np.pi * 220 / sample_rate_hz
    # A fade adds its own slope (full level in 5 ms), and two crossing sines may add up by half.
    allowed = 1.5 * steepest_of_the_sine + 0.5 * np.pi / 2 / (0.005 * sample_rate_hz) + 2 / 32767
    assert np.abs(np.diff(samples, prepend=0, append=0)).max() <= allowed


def test_pauses_are_exact_silence_and_follow_the_speed():
    text = "One sentence stands here.\n\nAnother paragraph."
    for speed in (1.0, 2.0):
        samples = pcm(rendered(request_for(text, speed=speed), ToneEngine(edge_seconds=0.0))[1])
        loud = np.flatnonzero(samples)
        gap = int(np.diff(loud).max())
        assert gap == pytest.approx(PAUSE_MS[Pause.PARAGRAPH] / speed * 24, abs=24)


def test_silence_of_the_engine_is_cut_to_the_same_margin():
    lengths = {
        rendered(request_for(), ToneEngine(edge_seconds=seconds))[2].audio_frames for seconds in (0.05, 0.1, 0.4)
    }
    assert len(lengths) == 1


@pytest.mark.parametrize("chunk_seconds", [0.001, 0.037, 10.0])
def test_the_sound_does_not_depend_on_how_the_engine_cuts_it(chunk_seconds):
    request = request_for(sample_rate_hz=16_000)
    assert rendered(request, ToneEngine(chunk_seconds=chunk_seconds))[1:] == rendered(request)[1:]


def test_the_level_is_the_engines_own_in_every_segment():
    samples = pcm(rendered(request_for(), ToneEngine(level=0.4))[1])
    seconds = [np.abs(samples[start : start + 2400]).max() for start in range(0, len(samples) - 2400, 2400)]
    assert max(seconds) == pytest.approx(0.4, abs=0.02)


def test_peaks_are_bent_under_the_ceiling_and_the_rest_is_untouched():
    quiet = np.linspace(-0.7, 0.7, 1001, dtype=np.float32)
    np.testing.assert_array_equal(limit_peaks(quiet), quiet)
    loud = np.linspace(-50, 50, 100_001, dtype=np.float32)
    limited = limit_peaks(loud)
    assert np.abs(limited).max() <= 10 ** (-1 / 20) + 1e-6
    assert (np.diff(limited) >= 0).all()
    for rate in (24_000, 48_000):
        samples = pcm(rendered(request_for(sample_rate_hz=rate), ToneEngine(level=1.5))[1])
        assert 0.85 < np.abs(samples).max() <= 10 ** (-0.3 / 20)


def test_marks_lead_back_to_the_request_and_to_the_sound():
    text = "\ufeffCafe\u0301 olé.  \n\n我用 Python 写程序。 And the end is near."
    for rate in (24_000, 44_100):
        chunks, artifact, result = rendered(request_for(text, sample_rate_hz=rate))
        words = [mark for mark in result.marks if mark.kind == "word"]
        assert [text[mark.text_start : mark.text_end] for mark in words] == (
            ["Cafe\u0301", "olé", "我用", "Python", "写程序", "And", "the", "end", "is", "near"]
        )
        sentences = [text[mark.text_start : mark.text_end] for mark in result.marks if mark.kind == "sentence"]
        assert sentences == ["Cafe\u0301 olé.", "我用 Python 写程序。", "And the end is near."]
        samples = pcm(artifact)
        loud = np.abs(samples) > 0.3
        for mark in words:
            assert loud[mark.start_ms * rate // 1000 : mark.end_ms * rate // 1000].mean() > 0.4
        # The first word of a paragraph begins where the sound begins again.
        onset = int(np.flatnonzero(loud & (np.arange(len(loud)) > rate * (words[1].end_ms + 200) // 1000))[0])
        assert words[2].start_ms == pytest.approx(onset * 1000 / rate, abs=6)
        delivered = [mark for chunk in chunks for mark in chunk.marks]
        assert sorted(map(repr, delivered)) == sorted(map(repr, result.marks))
        assert all(mark.end_ms <= result.audio_seconds * 1000 + 1 for mark in result.marks)


def test_a_sentence_longer_than_a_segment_has_one_mark():
    text = "word " * 100 + "end."
    _, _, result = rendered(request_for(text))
    sentences = [mark for mark in result.marks if mark.kind == "sentence"]
    words = [mark for mark in result.marks if mark.kind == "word"]
    assert result.segments > 2
    assert [(mark.text_start, mark.text_end) for mark in sentences] == [(0, len(text))]
    assert (sentences[0].start_ms, sentences[0].end_ms) == (words[0].start_ms, words[-1].end_ms)


def test_cancelling_stops_within_half_a_second_of_sound():
    engine = ToneEngine(chunk_seconds=30.0, seconds_per_char=0.1)
    chunks: list[RenderedChunk] = []
    rendering = render(
        request_for(), engine=engine, voice=VOICE, artifact=io.BytesIO(), is_cancelled=lambda: bool(chunks)
    )
    with pytest.raises(RenderCancelledError):
        chunks.extend(rendering)  # extend takes one at a time
    assert len(chunks) == 1
    assert len(chunks[0].data) <= 24_000 * 2 * 0.5
    assert len(engine.calls) == engine.closed_calls == 1
    with pytest.raises(RuntimeError):
        _ = rendering.result


def test_a_cancelled_request_does_not_reach_the_engine():
    engine = ToneEngine()
    with pytest.raises(RenderCancelledError):
        next(render(request_for(), engine=engine, voice=VOICE, artifact=io.BytesIO(), is_cancelled=lambda: True))
    assert engine.calls == []


@pytest.mark.parametrize("text", ["", "  \n", "?!", "😀"])
def test_text_without_words_is_unspeakable(text):
    with pytest.raises(UnspeakableTextError):
        next(render(request_for(text), engine=ToneEngine(), voice=VOICE, artifact=io.BytesIO()))


def test_one_unspeakable_stretch_does_not_spoil_the_rest_but_all_of_them_do():
    text = "The first sentence is good. QQQ cannot be said by this one. The last one is good."
    chunks, _, result = rendered(request_for(text), ToneEngine(unspeakable="QQQ"))
    assert result.segments == 3
    assert chunks[-1].text_end == len(text)
    with pytest.raises(UnspeakableTextError):
        rendered(request_for(text), ToneEngine(unspeakable="e"))


@pytest.mark.parametrize("level", [0.0, float("nan"), float("inf")])
def test_an_engine_that_gives_no_sound_is_an_error(level):
    with pytest.raises(EngineError):
        rendered(request_for(), ToneEngine(level=level))


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_one_character_is_enough(audio_format):
    chunks, artifact, result = rendered(request_for("a", audio_format=audio_format))
    assert artifact
    assert chunks[-1].text_end == 1
    assert result.audio_frames > 0


def test_a_book_needs_no_more_memory_than_a_page():
    def peak_bytes(text: str) -> int:
        engine = ToneEngine(seconds_per_char=0.01)
        with tempfile.TemporaryFile() as artifact:
            tracemalloc.start()
            for _ in render(request_for(text), engine=engine, voice=VOICE, artifact=artifact):
                pass
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert artifact.tell() > 0
        return peak

    sentence = "Supercalifragilistic" * 9 + ". "
    short, long = peak_bytes(sentence * 10), peak_bytes(sentence * 200)  # 6.5 minutes: 19 MB of 16-bit sound
    assert long - short < 6_000_000
