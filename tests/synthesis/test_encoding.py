from __future__ import annotations

import errno
import io
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from synthesis.contracts import SAMPLE_RATES_HZ, AudioFormat
from synthesis.encoding import SYNTHETIC_COMMENT, EncodingError, open_encoder
from synthesis.engines.base import Samples

EVERY_FORMAT = [(audio_format, rate) for audio_format, rates in SAMPLE_RATES_HZ.items() for rate in rates]
CONTAINERS = [pair for pair in EVERY_FORMAT if pair[0] is not AudioFormat.PCM]
MP3_START_FRAMES = 1105  # the coder's delay, 576 + 529: only the finished file tells players to skip it
FLAC_BLOCK_FRAMES = 4096


def speechlike(sample_rate_hz: int, seconds: float = 2.7) -> Samples:
    time = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    loudness = np.clip(np.sin(2 * np.pi * 1.1 * time), 0, 1)  # with pauses
    noise = np.random.default_rng(5).standard_normal(len(time))
    return (loudness * (0.3 * np.sin(2 * np.pi * 180 * time) + 0.02 * noise)).astype(np.float32)


def encode(
    audio_format: AudioFormat, sample_rate_hz: int, samples: Samples, *, block: int = 3000
) -> tuple[bytes, bytes]:
    """What the listener got, and the finished file."""
    artifact = io.BytesIO()
    encoder = open_encoder(audio_format, sample_rate_hz, artifact, stream_serial=0xCAFE)
    parts = [encoder.write(samples[start : start + block]) for start in range(0, len(samples), block)]
    parts.append(encoder.finish())
    encoder.close()
    assert encoder.frames == len(samples)
    return b"".join(parts), artifact.getvalue()


def decode(data: bytes) -> Samples:
    samples: Samples = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    return samples


def flac_frames(data: bytes) -> bytes:
    position, is_last = 4, False
    while not is_last:
        is_last = bool(data[position] & 0x80)
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "big")
    return data[position:]


@pytest.mark.parametrize(("audio_format", "sample_rate_hz"), CONTAINERS)
def test_stream_and_file_hold_the_same_samples(audio_format, sample_rate_hz):
    samples = speechlike(sample_rate_hz)
    stream, artifact = encode(audio_format, sample_rate_hz, samples)
    whole = decode(artifact)
    assert len(whole) == len(samples)
    if audio_format is AudioFormat.FLAC:
        # libsndfile's wrapper cannot read up to the end of a FLAC of unknown length; the coded frames are the same.
        known = len(samples) // FLAC_BLOCK_FRAMES * FLAC_BLOCK_FRAMES
        with soundfile.SoundFile(io.BytesIO(stream)) as file:
            np.testing.assert_array_equal(file.read(known, dtype="float32"), whole[:known])
        assert flac_frames(stream) == flac_frames(artifact)
    elif audio_format is AudioFormat.MP3:
        streamed = decode(stream)[MP3_START_FRAMES:][: len(whole)]
        np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-6)  # the decoder's filter rounds by frame number
    else:
        np.testing.assert_array_equal(decode(stream), whole)


@pytest.mark.parametrize("sample_rate_hz", SAMPLE_RATES_HZ[AudioFormat.PCM])
def test_lossless_formats_hold_the_samples_rounded_to_16_bits(sample_rate_hz):
    samples = speechlike(sample_rate_hz)
    expected = np.rint(samples * 32767).astype(np.int16)
    for audio_format in (AudioFormat.WAV, AudioFormat.FLAC):
        stored, rate = soundfile.read(io.BytesIO(encode(audio_format, sample_rate_hz, samples)[1]), dtype="int16")
        assert rate == sample_rate_hz
        np.testing.assert_array_equal(stored, expected)
    stream, artifact = encode(AudioFormat.PCM, sample_rate_hz, samples)
    assert stream == artifact == expected.astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("audio_format", "sample_rate_hz"), [pair for pair in CONTAINERS if pair[0] in ("mp3", "opus")]
)
def test_lossy_formats_sound_like_the_samples_and_start_with_them(audio_format, sample_rate_hz):
    samples = speechlike(sample_rate_hz)
    decoded = decode(encode(audio_format, sample_rate_hz, samples)[1])
    products = [
        float(np.dot(decoded[200:-200], samples[200 + lag : len(samples) - 200 + lag])) for lag in range(-20, 21)
    ]
    assert abs(int(np.argmax(products)) - 20) <= 2
    assert np.corrcoef(decoded, samples)[0, 1] > 0.97


@pytest.mark.parametrize(("audio_format", "sample_rate_hz"), CONTAINERS)
def test_stream_and_file_say_that_they_are_synthetic(audio_format, sample_rate_hz):
    for data in encode(audio_format, sample_rate_hz, speechlike(sample_rate_hz, 0.3)):
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            assert file.comment == SYNTHETIC_COMMENT
            assert file.samplerate == sample_rate_hz
            assert file.channels == 1


@pytest.mark.parametrize(("audio_format", "sample_rate_hz"), EVERY_FORMAT)
def test_equal_samples_give_equal_bytes_however_they_are_cut(audio_format, sample_rate_hz):
    samples = speechlike(sample_rate_hz, 1.1)
    first = encode(audio_format, sample_rate_hz, samples)
    assert first == encode(audio_format, sample_rate_hz, samples)
    # A page of Ogg ends where a write found enough in it, so there only the sound must be equal.
    if audio_format is not AudioFormat.OPUS:
        assert first == encode(audio_format, sample_rate_hz, samples, block=777)
    else:
        np.testing.assert_array_equal(
            decode(first[1]), decode(encode(audio_format, sample_rate_hz, samples, block=777)[1])
        )


@pytest.mark.parametrize(("audio_format", "sample_rate_hz"), EVERY_FORMAT)
def test_bytes_come_while_samples_go_in(audio_format, sample_rate_hz):
    encoder = open_encoder(audio_format, sample_rate_hz, io.BytesIO(), stream_serial=1)
    samples = speechlike(sample_rate_hz, 3.0)
    latest = 0
    block = sample_rate_hz // 50
    for start in range(0, len(samples), block):
        if encoder.write(samples[start : start + block]):
            latest = encoder.frames
        held = encoder.frames - encoder.decodable_frames
        assert 0 <= held <= max(4 * 1152 + block, 0.3 * sample_rate_hz + block)
        assert encoder.frames - latest <= max(FLAC_BLOCK_FRAMES + block, 0.2 * sample_rate_hz)
    encoder.finish()


@pytest.mark.parametrize(("audio_format", "sample_rate_hz"), CONTAINERS)
def test_what_is_called_decodable_can_be_decoded_from_a_broken_off_stream(audio_format, sample_rate_hz):
    artifact = io.BytesIO()
    encoder = open_encoder(audio_format, sample_rate_hz, artifact, stream_serial=1)
    samples = speechlike(sample_rate_hz, 1.5)
    data = encoder.write(samples)
    decodable = encoder.decodable_frames - 1  # the wrapper also looks for the frame after the last one read
    encoder.finish()
    whole = decode(artifact.getvalue())
    assert decodable > 0.6 * len(samples)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        skipped = file.read(MP3_START_FRAMES) if audio_format is AudioFormat.MP3 else ()
        assert len(skipped) in (0, MP3_START_FRAMES)
        np.testing.assert_allclose(file.read(decodable, dtype="float32"), whole[:decodable], rtol=0, atol=1e-6)


def test_streamed_wav_says_that_its_length_is_unknown_and_the_file_says_it():
    stream, artifact = encode(AudioFormat.WAV, 24_000, speechlike(24_000, 0.5))
    assert struct.unpack_from("<I", stream, 4) == (0xFFFFFFFF,)
    assert struct.unpack_from("<I", artifact, 4) == (len(artifact) - 8,)
    position = artifact.index(b"data") + 4
    assert struct.unpack_from("<I", stream, position) == (0xFFFFFFFF,)
    assert struct.unpack_from("<I", artifact, position) == (len(artifact) - position - 4,)


def test_another_serial_is_in_every_page_of_ogg():
    encoder = open_encoder(AudioFormat.OPUS, 24_000, io.BytesIO(), stream_serial=0x01020304)
    data = encoder.write(speechlike(24_000)) + encoder.finish()
    serials = {page[10:14] for page in data.split(b"OggS")[1:]}
    assert serials == {bytes((4, 3, 2, 1))}


class _FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        if self.tell() > 5000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_a_full_disk_is_an_error(audio_format):
    def drive() -> Iterator[bytes]:
        encoder = open_encoder(audio_format, 24_000, _FullDisk(), stream_serial=1)
        samples = speechlike(24_000)
        for start in range(0, len(samples), 3000):
            yield encoder.write(samples[start : start + 3000])
        yield encoder.finish()

    with pytest.raises(EncodingError, match="No space left"):
        list(drive())


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_an_encoder_may_be_left_early(audio_format):
    encoder = open_encoder(audio_format, 24_000, io.BytesIO(), stream_serial=1)
    encoder.write(speechlike(24_000, 0.4))
    encoder.close()
    encoder.close()
