"""What is kept of an upload, and what is refused: the formats, the measurements and every kind of bad file."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.voices.uploads import (
    GOOD_FORMATS,
    encode,
    encode_as,
    flac_of_constants,
    forge_flac_length,
    silence,
    speech,
    wav,
    wav_of,
)
from voices.errors import UploadRejectedError
from voices.intake import MAX_UPLOAD_BYTES, InspectedClip, QualityReport, inspect_upload


def inspect(data: bytes, filename: str | None = None, content_type: str | None = None) -> InspectedClip:
    return inspect_upload(io.BytesIO(data), declared_filename=filename, declared_content_type=content_type)


def refusal(data: bytes, filename: str | None = None, content_type: str | None = None) -> UploadRejectedError:
    with pytest.raises(UploadRejectedError) as caught:
        inspect(data, filename, content_type)
    assert 400 <= caught.value.status < 500
    assert caught.value.message
    return caught.value


def read_wav(clip: InspectedClip) -> tuple[np.ndarray[Any, Any], int]:
    return soundfile.read(io.BytesIO(clip.wav), dtype="int16", always_2d=True)  # type: ignore[no-any-return]


def advice_codes(clip: InspectedClip) -> set[str]:
    return {advice.code for advice in clip.quality.advice}


# --- what works ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD_FORMATS)
def test_every_format_becomes_our_own_mono_wav(name: str) -> None:
    rate = 24_000
    _, _, extension, content_type = GOOD_FORMATS[name]
    original = speech(6.0, rate)
    clip = inspect(encode_as(name, original, rate, channels=2), "take 1" + extension, content_type)

    samples, kept_rate = read_wav(clip)
    assert (kept_rate, clip.sample_rate_hz, samples.shape[1]) == (rate, rate, 1)
    assert clip.duration_seconds == len(samples) / rate == pytest.approx(6.0, abs=0.3)
    assert clip.sha256 == hashlib.sha256(clip.wav).hexdigest()
    assert clip.quality.container == {".opus": "ogg"}.get(extension, extension[1:])
    assert (clip.quality.channels, clip.quality.sample_rate_hz) == (2, rate)
    # the same sound: lossy codecs shift by a few samples, so the spectra are compared
    start = round(clip.quality.start_seconds * rate)
    expected = np.abs(np.fft.rfft(original[start : start + len(samples)], 2**18))[: 2**15]
    got = np.abs(np.fft.rfft(samples[:, 0] / 32768, 2**18))[: 2**15]
    assert np.corrcoef(expected, got)[0, 1] > 0.98


def test_16_bit_mono_comes_out_as_it_went_in() -> None:
    data = encode(speech(5.0, 16_000), 16_000)
    clip = inspect(data)
    original, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    kept, _ = read_wav(clip)
    start = round(clip.quality.start_seconds * 16_000)
    np.testing.assert_array_equal(kept[:, 0], original[start : start + len(kept)])


def test_equal_audio_has_an_equal_digest_in_any_lossless_container() -> None:
    samples = np.rint(speech(5.0) * 32767).astype(np.int16)
    digests = {inspect(encode_as(name, samples)).sha256 for name in ("wav_16", "wav_24", "flac")}  # type: ignore[arg-type]
    assert len(digests) == 1
    assert inspect(encode(speech(5.0, seed=1))).sha256 not in digests


@pytest.mark.parametrize(
    ("rate", "channels", "subtype", "kept_rate"),
    [(192_000, 2, "FLOAT", 48_000), (96_000, 1, "PCM_24", 48_000), (88_200, 2, "PCM_16", 48_000),
     (8_000, 1, "PCM_U8", 8_000),
     (11_025, 1, "PCM_16", 11_025), (44_100, 8, "PCM_16", 44_100)],
)  # fmt: skip
def test_sample_rates_are_kept_up_to_48_khz(rate: int, channels: int, subtype: str, kept_rate: int) -> None:
    clip = inspect(encode(speech(3.5, rate), rate, subtype=subtype, channels=channels))
    samples, wav_rate = read_wav(clip)
    assert wav_rate == clip.sample_rate_hz == kept_rate
    assert len(samples) / kept_rate == pytest.approx(3.5, abs=0.3)
    assert clip.quality.sample_rate_hz == rate
    spectrum = np.abs(np.fft.rfft(samples[:, 0]))
    strongest_hz = np.fft.rfftfreq(len(samples), 1 / kept_rate)[spectrum.argmax()]
    assert strongest_hz == pytest.approx(120, rel=0.12)  # the pitch that went in: no wrong rate, no aliasing


def test_silence_around_the_speech_is_left_out() -> None:
    clip = inspect(encode(np.concatenate([silence(5), speech(5), silence(5)])))
    assert clip.quality.original_seconds == pytest.approx(15.0, abs=0.01)
    assert clip.quality.start_seconds == pytest.approx(4.75, abs=0.1)
    assert clip.quality.end_seconds == pytest.approx(10.0, abs=0.3)
    assert clip.quality.silence_share > 0.6
    assert "window_chosen" in advice_codes(clip)


def test_the_clean_part_of_a_long_recording_is_chosen() -> None:
    noisy = speech(14.0, noise=0.05)
    loud = np.clip(speech(14.0, level=2.0), -1, 1)
    clean = speech(12.0)
    clip = inspect(encode(np.concatenate([noisy, clean, loud])))
    assert 3.0 <= clip.duration_seconds <= 10.0
    assert clip.quality.start_seconds >= 13.9
    assert clip.quality.end_seconds <= 26.1
    assert clip.quality.clipping_share == 0
    assert clip.duration_seconds == pytest.approx(clip.quality.end_seconds - clip.quality.start_seconds, abs=0.002)


def test_a_long_recording_is_cut_in_pauses() -> None:
    clip = inspect(encode(speech(40.0)))
    assert 6.0 <= clip.duration_seconds <= 10.0
    samples, rate = read_wav(clip)
    edges = np.concatenate([samples[: rate // 50, 0], samples[-rate // 50 :, 0]]).astype(float)
    assert np.abs(edges).max() < 0.05 * np.abs(samples.astype(float)).max()


def test_more_than_ten_minutes_are_looked_at_only_in_part() -> None:
    minute = speech(60.0, 8_000)
    data = encode_as("vorbis", np.tile(minute, 11), 8_000)
    assert len(data) < MAX_UPLOAD_BYTES
    clip = inspect(data)
    assert (clip.quality.original_seconds, clip.quality.is_examined_fully) == (600.0, False)
    assert "partly_examined" in advice_codes(clip)


def test_float_audio_above_full_scale_is_scaled_not_clipped() -> None:
    clip = inspect(encode(speech(5.0, level=400.0), subtype="FLOAT"))
    samples, _ = read_wav(clip)
    assert np.abs(samples.astype(int)).max() >= 32_700
    assert (np.abs(samples.astype(int)) >= 32_767).mean() < 0.001


def test_channels_that_cancel_each_other_are_not_mixed() -> None:
    voice = speech(5.0)
    clip = inspect(encode(np.stack([voice, -voice], axis=1)))
    assert clip.quality.active_level_dbfs > -30
    one_of_eight = np.zeros((len(voice), 8), np.float32)
    one_of_eight[:, 5] = voice
    assert inspect(encode(one_of_eight)).quality.active_level_dbfs == pytest.approx(
        clip.quality.active_level_dbfs, abs=0.2
    )


@pytest.mark.parametrize(
    "content_type", [None, "", "application/octet-stream", "audio/x-wav; charset=binary", "AUDIO/WAV"]
)
@pytest.mark.parametrize("filename", [None, "", "voice", "voice.WAV", "../../etc/voice.wave", "my.voice.take2"])
def test_a_declaration_that_agrees_or_says_nothing_is_fine(filename: str | None, content_type: str | None) -> None:
    assert inspect(encode(speech(3.5, 8_000), 8_000), filename, content_type).duration_seconds >= 3


def test_a_path_and_open_files_are_read_and_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(speech(4.0)))
    by_path = inspect_upload(path, declared_filename="a.wav", declared_content_type=None)
    with path.open("rb") as file:
        file.seek(7)
        by_file = inspect_upload(file, declared_filename="a.wav", declared_content_type=None)
        assert file.tell() == 7
    memory = io.BytesIO(path.read_bytes())
    memory.seek(9)
    assert inspect_upload(memory, declared_filename=None, declared_content_type=None).sha256 == by_file.sha256
    assert memory.tell() == 9
    assert by_path.sha256 == by_file.sha256
    assert list(tmp_path.iterdir()) == [path]


def test_tags_around_the_audio_are_no_trailing_data() -> None:
    comment = b"LIST" + struct.pack("<I", 18) + b"INFOICMT" + struct.pack("<I", 6) + b"hello\0"
    assert inspect(wav(BODY, before_data=comment)).quality.codec == "pcm_s16"
    id3 = b"ID3\x03\x00\x00" + bytes([0, 1, 0, 0]) + bytes(1 << 14)
    mp3 = encode_as("mp3", speech(4.0))
    assert inspect(id3 + mp3 + b"TAG" + bytes(125), "a.mp3").quality.codec == "mp3"
    assert inspect(id3 + encode_as("flac", speech(4.0)), "a.flac").quality.codec == "flac"
    assert inspect(encode(speech(4.0)) + bytes(60_000), "a.wav").quality.codec == "pcm_s16"


def test_flac_of_unknown_length_works() -> None:
    clip = inspect(forge_flac_length(encode_as("flac", speech(6.0)), 0))
    assert clip.quality.original_seconds == pytest.approx(6.0, abs=0.2)


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_of_a_good_clip() -> None:
    clip = inspect(encode(speech(9.0, 44_100), 44_100))
    report = clip.quality
    assert report.score >= 90
    assert report.snr_db > 35
    assert report.voiced_share > 0.7
    assert 5.0 < report.speech_seconds < 9.0
    assert 9_000 < report.bandwidth_hz < 11_500
    assert report.clipping_share == 0
    assert report.noise_floor_dbfs == pytest.approx(20 * np.log10(0.0005), abs=2)
    samples, _ = read_wav(clip)
    assert report.peak_dbfs == pytest.approx(20 * np.log10(np.abs(samples / 32768).max()), abs=0.1)
    assert QualityReport.from_json(report.to_json()) == report


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_loudness_follows_bs_1770(rate: int) -> None:
    # BS.1770-5: a 997 Hz sine at 0 dBFS in one channel measures -3.01 LKFS; here it is 20 dB below
    t = np.arange(8 * rate) / rate
    tone = (0.1 * np.sin(2 * np.pi * 997 * t)).astype(np.float32)
    tone[3 * rate : 5 * rate] *= 0.03  # above the absolute gate, below the relative one
    clip = inspect(encode(tone, rate))
    assert clip.quality.loudness_lufs == pytest.approx(-23.0, abs=0.2)


def test_clipping_is_measured_and_explained() -> None:
    loud = np.clip(speech(6.0, level=1.2), -1, 1)
    share = float((np.abs(loud) >= 1).mean())
    assert share > 0.01
    clip = inspect(encode(loud))
    assert clip.quality.clipping_share == pytest.approx(share, rel=0.35)
    assert clip.quality.score < 75
    advice = {item.code: item.message for item in clip.quality.advice}
    assert "microphone" in advice["clipped"]
    quieter = inspect(encode(loud * 0.5))  # clipped before it was turned down
    assert quieter.quality.clipping_share == pytest.approx(clip.quality.clipping_share, rel=0.1)
    assert inspect(encode(speech(6.0, level=0.2))).quality.clipping_share == 0


def test_noise_bandwidth_and_level_are_advised_on() -> None:
    good = inspect(encode(speech(8.0))).quality
    noisy = inspect(encode(speech(8.0, noise=0.03)))
    assert noisy.quality.snr_db < 25
    assert "noisy" in advice_codes(noisy)
    phone = inspect(encode(speech(8.0, 8_000), 8_000))
    assert (phone.quality.bandwidth_hz <= 4_000, "dull" in advice_codes(phone)) == (True, True)
    quiet = inspect(encode(speech(8.0, level=0.002, noise=0.00001)))
    assert "too_quiet" in advice_codes(quiet)
    tone = np.sin(2 * np.pi * 220 * np.arange(5 * 24_000) / 24_000).astype(np.float32) * 0.3
    assert "unlike_speech" in advice_codes(inspect(encode(tone)))
    assert good.score > max(noisy.quality.score, phone.quality.score, quiet.quality.score)


# --- what is refused --------------------------------------------------------------------------------------------------


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.wav", encode(speech(4.0)))
    return file.getvalue()


def _nan() -> bytes:
    samples = speech(5.0)
    samples[70_000] = np.nan
    return encode(samples, subtype="FLOAT")


def _infinite() -> bytes:
    samples = speech(5.0)
    samples[10] = -np.inf
    return encode(samples, subtype="DOUBLE")


def _second_bos() -> bytes:
    return encode_as("opus", speech(4.0)).replace(b"OpusHead", b"Speex   ", 1)


SAMPLES = speech(5.0)
BODY = np.rint(SAMPLES * 32767).astype("<i2").tobytes()
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "audio_empty"),
    "one_byte": (lambda: b"R", "unsupported_audio_format"),
    "text": (lambda: b"Hello, I am a recording.\n" * 100, "unsupported_audio_format"),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", "unsupported_audio_format"),
    "zip": (_zip, "unsupported_audio_format"),
    "elf": (lambda: b"\x7fELF\x02\x01\x01" + bytes(5000), "unsupported_audio_format"),
    "m4a": (lambda: bytes([0, 0, 0, 32]) + b"ftypM4A " + bytes(500), "unsupported_audio_format"),
    "aiff": (lambda: encode(SAMPLES, file_format="AIFF"), "unsupported_audio_format"),
    "rf64": (lambda: encode(SAMPLES, file_format="RF64"), "unsupported_audio_format"),
    "au": (lambda: encode(SAMPLES, file_format="AU"), "unsupported_audio_format"),
    "wav_adpcm": (lambda: encode(SAMPLES, subtype="IMA_ADPCM"), "unsupported_audio_format"),
    "ogg_speex": (_second_bos, "unsupported_audio_format"),
    "wav_header_only": (lambda: wav(b""), "audio_empty"),
    "wav_44_zero_bytes": (lambda: b"RIFF" + bytes(40), "unsupported_audio_format"),
    "wav_4_gib": (lambda: wav(BODY, riff_bytes=2**32 - 1, data_bytes=2**32 - 1), "audio_unreadable"),
    "wav_data_4_gib": (lambda: wav(BODY, data_bytes=2**32 - 8), "audio_unreadable"),
    "wav_cut_off": (lambda: wav(BODY)[:100_000], "audio_unreadable"),
    "wav_nested": (
        lambda: wav(BODY, before_data=b"RIFF" + struct.pack("<I", 4) + b"WAVE"),
        "audio_unreadable",
    ),
    "wav_false_list": (
        lambda: wav(
            BODY, before_data=b"LIST" + struct.pack("<I", 24) + b"INFOICMT" + struct.pack("<I", 2**31) + bytes(12)
        ),
        "audio_unreadable",
    ),
    "wav_many_chunks": (lambda: wav(BODY, before_data=b"junk\0\0\0\0" * 5000), "audio_unreadable"),
    "wav_1_hz": (lambda: wav(BODY, sample_rate_hz=1), "unsupported_sample_rate"),
    "wav_4_ghz": (lambda: wav(BODY, sample_rate_hz=2**32 - 1), "unsupported_sample_rate"),
    "wav_no_channels": (lambda: wav(BODY, channels=0), "unsupported_channels"),
    "wav_100_channels": (lambda: wav(BODY, channels=100), "unsupported_channels"),
    "wav_nan": (_nan, "audio_not_finite"),
    "wav_infinite": (_infinite, "audio_not_finite"),
    "wav_trailing": (lambda: wav(BODY) + _zip(), "audio_trailing_data"),
    "flac_trailing": (lambda: encode_as("flac", SAMPLES) + _zip(), "audio_trailing_data"),
    "opus_trailing": (lambda: encode_as("opus", SAMPLES) + _zip(), "audio_trailing_data"),
    "mp3_trailing": (lambda: encode_as("mp3", SAMPLES) + _zip(), "audio_trailing_data"),
    "flac_claims_hours": (
        lambda: forge_flac_length(encode_as("flac", SAMPLES), 10 * 3600 * 24_000)[:4096],
        "audio_unreadable",
    ),
    "flac_claims_weeks": (lambda: forge_flac_length(encode_as("flac", SAMPLES), 2**36 - 1), "audio_unreadable"),
    "flac_24_hours_of_silence": (lambda: flac_of_constants(24 * 3600), "audio_silent"),
    "flac_cut_off": (lambda: encode_as("flac", speech(9.0, noise=0.05))[:-60_000], "audio_unreadable"),
    "flac_header_only": (lambda: encode_as("flac", SAMPLES)[:42], "audio_unreadable"),
    "silent": (lambda: encode(silence(10)), "audio_silent"),
    "hiss_only": (
        lambda: encode((0.05 * np.random.default_rng(1).standard_normal(240_000)).astype(np.float32)),
        "audio_no_speech",
    ),
    "half_a_second": (lambda: encode(speech(0.5)), "audio_too_short"),
    "one_sample": (lambda: wav(b"\x00\x40"), "audio_too_short"),
    "short_within_silence": (lambda: encode(np.concatenate([silence(5), speech(1.5), silence(5)])), "audio_too_short"),
    "two_words_far_apart": (
        lambda: encode(np.concatenate([speech(0.5), silence(5), speech(0.5)])),
        "audio_too_short",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_files_are_refused_with_their_code(name: str) -> None:
    make, code = REFUSED[name]
    data = make()
    started = time.monotonic()
    error = refusal(data)
    assert error.code == code, error.message
    assert time.monotonic() - started < 10


def test_the_same_files_without_the_fault_are_accepted() -> None:
    for data in (wav(BODY), wav_of(SAMPLES), encode_as("flac", SAMPLES), encode(SAMPLES, subtype="FLOAT")):
        assert inspect(data).duration_seconds > 3


def test_too_large_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    with path.open("wb") as file:
        file.truncate(MAX_UPLOAD_BYTES + 1)
    with pytest.raises(UploadRejectedError) as by_path:
        inspect_upload(path, declared_filename=None, declared_content_type=None)
    assert (by_path.value.code, by_path.value.status) == ("audio_too_large", 413)
    assert by_path.value.details == {"size_bytes": MAX_UPLOAD_BYTES + 1, "limit_bytes": 25_000_000}
    assert refusal(bytes(MAX_UPLOAD_BYTES + 1)).code == "audio_too_large"


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [("a.mp3", None), ("a.html", None), ("a.php.zip", None), ("a.txt", None), (None, "audio/mpeg"), (None, "text/html"),
     ("a.wav", "audio/flac"), ("a.flac", "audio/wav"), ("a.wav", "image/png")],
)  # fmt: skip
def test_a_declaration_that_contradicts_the_content_is_refused(filename: str | None, content_type: str | None) -> None:
    error = refusal(encode(speech(4.0)), filename, content_type)
    assert (error.code, error.status, error.details["detected"]) == ("audio_format_mismatch", 415, "wav")


def test_a_text_file_named_wav_is_refused_for_what_it_is() -> None:
    error = refusal(b"not a recording", "voice.wav", "audio/wav")
    assert (error.code, error.details["detected"]) == ("unsupported_audio_format", "a text file")


def test_details_say_what_a_program_needs() -> None:
    assert refusal(encode(speech(0.5))).details["minimum_seconds"] == 3.0
    rate = refusal(wav(BODY, sample_rate_hz=1)).details
    assert (rate["sample_rate_hz"], rate["minimum_hz"], rate["maximum_hz"]) == (1, 8_000, 192_000)
    assert refusal(_nan()).details["at_seconds"] <= 70_000 / 24_000
    mp3 = encode_as("mp3", speech(9.0))
    half = refusal(mp3[: len(mp3) // 2])
    assert (half.code, half.details["promised_seconds"]) == ("audio_unreadable", pytest.approx(9.0, abs=0.2))
    cut = refusal(wav(BODY)[:100_000]).details
    assert (cut["size_bytes"], cut["promised_bytes"]) == (100_000, len(wav(BODY)))


# --- mutants ----------------------------------------------------------------------------------------------------------


def _mutate(data: bytes, chance: random.Random) -> bytes:
    mutant = bytearray(data)
    kind = chance.randrange(6)
    if kind == 0:  # headers are where decoders believe what they read
        for _ in range(chance.randint(1, 8)):
            mutant[chance.randrange(min(200, len(mutant)))] = chance.choice(
                (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
            )
    elif kind == 1:
        for _ in range(chance.randint(1, 200)):
            mutant[chance.randrange(len(mutant))] ^= 1 << chance.randrange(8)
    elif kind == 2:
        del mutant[chance.randrange(len(mutant)) :]
    elif kind == 3:
        start = chance.randrange(len(mutant))
        del mutant[start : start + chance.randint(1, 5000)]
    elif kind == 4:
        mutant += chance.randbytes(chance.randint(1, 5000))
    else:
        start = chance.randrange(len(mutant))
        mutant[start:start] = mutant[: chance.randint(1, 5000)]
    return bytes(mutant)


@pytest.mark.parametrize("name", GOOD_FORMATS)
def test_damaged_files_are_judged_quickly_and_never_break_the_inspection(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    chance = random.Random(seed)
    original = encode_as(name, speech(3.5, 8_000), 8_000)
    codes = []
    for number in range(40):
        mutant = _mutate(original, chance)
        started = time.monotonic()
        try:
            clip = inspect(mutant)
        except UploadRejectedError as error:
            codes.append(error.code)
        else:
            samples, rate = read_wav(clip)
            assert 3 <= len(samples) / rate <= 10, (name, seed, number)
        assert time.monotonic() - started < 5, (name, seed, number)
    assert 5 <= len(codes) < 40  # else this tests only one of the two ways
    assert {"upload_rejected", "inspection_timeout", "inspection_failed"}.isdisjoint(codes), (name, seed)
    assert capfd.readouterr().err == ""  # decoders print what files make them say
