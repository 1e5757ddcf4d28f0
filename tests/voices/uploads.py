"""Uploads for tests, made on the spot: recordings that sound like speech to a meter, and files that are none."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import soundfile

Samples = npt.NDArray[np.float32]

# (format, subtype, extension, content type) of everything a client may send
GOOD_FORMATS = {
    "wav_8": ("WAV", "PCM_U8", ".wav", "audio/wav"),
    "wav_16": ("WAV", "PCM_16", ".wav", "audio/x-wav"),
    "wav_24": ("WAVEX", "PCM_24", ".wav", "audio/wave"),
    "wav_float": ("WAV", "FLOAT", ".wav", "audio/vnd.wave"),
    "wav_ulaw": ("WAV", "ULAW", ".wav", "audio/wav"),
    "flac": ("FLAC", "PCM_16", ".flac", "audio/flac"),
    "vorbis": ("OGG", "VORBIS", ".ogg", "audio/ogg; codecs=vorbis"),
    "opus": ("OGG", "OPUS", ".opus", "audio/ogg"),
    "mp3": ("MP3", "MPEG_LAYER_III", ".mp3", "audio/mpeg"),
}


def speech(
    seconds: float, sample_rate_hz: int = 24_000, *, level: float = 0.2, noise: float = 0.0005, seed: int = 0
) -> Samples:
    """Harmonics of a gliding 120 Hz pitch, 3 syllables a second, a pause after each 2 seconds; faint noise."""
    t = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    phase = 2 * np.pi * np.cumsum(120 * (1 + 0.1 * np.sin(2 * np.pi * 0.4 * t))) / sample_rate_hz
    top = int(min(sample_rate_hz / 2, 10_000) / 140)
    voice = sum(np.sin(k * phase) / k**1.2 for k in range(1, top))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t) + 0.6, 0, 1)
    phrases = ((t % 2.4) < 2.0).astype(float)
    hiss = np.random.default_rng(seed).standard_normal(len(t))
    recording: Samples = (level * voice * syllables * phrases + noise * hiss).astype(np.float32)
    return recording


def silence(seconds: float, sample_rate_hz: int = 24_000) -> Samples:
    return np.zeros(round(seconds * sample_rate_hz), np.float32)


def encode(
    samples: Samples,
    sample_rate_hz: int = 24_000,
    *,
    file_format: str = "WAV",
    subtype: str = "PCM_16",
    channels: int = 1,
) -> bytes:
    """`samples` is (N,), copied to all channels, or (N, C); integers are written as they are."""
    if samples.ndim == 1:
        samples = np.repeat(samples[:, None], channels, axis=1)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", samplerate=sample_rate_hz, channels=samples.shape[1], format=file_format, subtype=subtype
    ) as file:
        for start in range(0, len(samples), sample_rate_hz):  # a long write of Vorbis crashes libsndfile 1.2.2
            file.write(samples[start : start + sample_rate_hz])
    return buffer.getvalue()


def encode_as(name: str, samples: Samples, sample_rate_hz: int = 24_000, *, channels: int = 1) -> bytes:
    file_format, subtype, _, _ = GOOD_FORMATS[name]
    return encode(samples, sample_rate_hz, file_format=file_format, subtype=subtype, channels=channels)


def wav(
    body: bytes,
    *,
    sample_rate_hz: int = 24_000,
    channels: int = 1,
    tag: int = 1,
    bits: int = 16,
    riff_bytes: int | None = None,
    data_bytes: int | None = None,
    before_data: bytes = b"",
) -> bytes:
    """A WAV file by hand, with any lie in its header."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, sample_rate_hz, sample_rate_hz * frame % 2**32, frame, bits)
    size = len(body) if data_bytes is None else data_bytes
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", 16) + form + before_data + b"data" + struct.pack("<I", size) + body
    return b"RIFF" + struct.pack("<I", len(chunks) if riff_bytes is None else riff_bytes) + chunks


def wav_of(samples: Samples, **header: int) -> bytes:
    return wav(np.rint(samples * 32767).astype("<i2").tobytes(), **header)  # type: ignore[arg-type]


def flac_of_constants(seconds: float, sample_rate_hz: int = 8_000, *, values: Sequence[int] = (0,)) -> bytes:
    """Valid FLAC (RFC 9639), one 16-bit value per channel for ever: hours of it fit into any upload."""
    block = 4_096
    count = int(seconds * sample_rate_hz) // block
    packed = sample_rate_hz << 44 | (len(values) - 1) << 41 | 15 << 36 | count * block
    info = struct.pack(">HH", block, block) + bytes(6) + packed.to_bytes(8) + bytes(16)
    subframes = b"".join(b"\x00" + value.to_bytes(2, signed=True) for value in values)
    frames = [b"fLaC", b"\x80", len(info).to_bytes(3), info]
    for number in range(count):
        header = b"\xff\xf8" + bytes([0xC << 4, (len(values) - 1) << 4 | 0x4 << 1]) + _utf8(number)
        header += bytes([_crc(header, 0x07, 8)])
        frame = header + subframes
        frames.append(frame + _crc(frame, 0x8005, 16).to_bytes(2))
    return b"".join(frames)


def forge_flac_length(data: bytes, samples: int) -> bytes:
    """The same file, whose header claims another number of samples (36 bits; 0 means unknown)."""
    forged = bytearray(data)
    packed = int.from_bytes(forged[18:26]) >> 36 << 36 | samples
    forged[18:26] = packed.to_bytes(8)
    return bytes(forged)


def _utf8(number: int) -> bytes:
    """FLAC's frame numbers: UTF-8, also beyond what Unicode has."""
    if number < 0x80:
        return bytes([number])
    tail = []
    limit = 0x40
    while True:
        tail.append(0x80 | number & 0x3F)
        number >>= 6
        limit >>= 1
        if number < limit:
            return bytes([(0xFF00 >> (len(tail) + 1)) & 0xFF | number, *reversed(tail)])


def _crc_table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) & 1 else 0)
        table.append(value & (1 << bits) - 1)
    return table


_CRC_TABLES = {(0x07, 8): _crc_table(0x07, 8), (0x8005, 16): _crc_table(0x8005, 16)}


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    table, value = _CRC_TABLES[polynomial, bits], 0
    for byte in data:
        value = (value << 8) & (1 << bits) - 1 ^ table[value >> (bits - 8) ^ byte]
    return value
