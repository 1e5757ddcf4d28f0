"""Encode samples while they come: bytes for a listener now, and a finished file for later.

The listener's bytes and the file hold the same encoded sound. They differ in headers that can only be filled in at the
end: the listener's say "length unknown" the way each format has for it.
"""

from __future__ import annotations

import io
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from synthesis.contracts import AudioFormat
from synthesis.engines.base import Samples

SYNTHETIC_COMMENT = "Synthetic speech made by Cantoria"
SOFTWARE = "Cantoria"

_INT16_FULL_SCALE = 32767
_UNKNOWN_SIZE = 0xFFFFFFFF
_FLAC_BLOCK_FRAMES = 4096  # libFLAC at its default level
_MP3_HELD_FRAMES = 4 * 1152  # LAME's look-ahead, delay and overlap, rounded up
_MPEG1_LOWEST_RATE_HZ = 32_000
_MPEG_HEADER_BYTES = 4
_ID3_HEADER_BYTES = 10
# ISO 11172-3, 2.4.2.3, and 13818-3, 2.4.2.3: layer III, MPEG-1 and MPEG-2.
_MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_RATES_HZ = (44_100, 48_000, 32_000)
_OGG_PAGE_MS = 100.0  # by default libsndfile keeps a second of sound back
_SFC_SET_OGG_PAGE_LATENCY_MS = 0x1302  # sndfile.h
_OPUS_CLOCK_HZ = 48_000  # granule positions count this whatever the input's rate (RFC 7845, section 4)


class EncodingError(Exception):
    """The artifact could not be written: a full or broken disk."""


def open_encoder(audio_format: AudioFormat, sample_rate_hz: int, artifact: BinaryIO, *, stream_serial: int) -> Encoder:
    """An encoder of mono sound that writes the finished file to `artifact` (empty, seekable).

    `stream_serial`: 32 bits that Ogg writes into every page; equal sound and serial give equal bytes.
    """
    match audio_format:
        case AudioFormat.PCM:
            return _PcmEncoder(artifact)
        case AudioFormat.WAV:
            return _WavEncoder(artifact, sample_rate_hz)
        case AudioFormat.FLAC:
            return _FlacEncoder(artifact, sample_rate_hz)
        case AudioFormat.MP3:
            return _Mp3Encoder(artifact, sample_rate_hz)
        case AudioFormat.OPUS:
            return _OpusEncoder(artifact, sample_rate_hz, stream_serial)


class Encoder(ABC):
    """Samples in (mono, full scale +-1), bytes out. `close` may be called at any time and twice."""

    frames = 0  # samples taken so far

    @abstractmethod
    def write(self, samples: Samples) -> bytes:
        """Encode; return the bytes that are ready for the listener. Raises EncodingError."""

    @abstractmethod
    def finish(self) -> bytes:
        """The listener's last bytes; afterwards the artifact is complete. Raises EncodingError."""

    @property
    @abstractmethod
    def decodable_frames(self) -> int:
        """How many frames can certainly be decoded from the bytes returned so far."""

    @abstractmethod
    def close(self) -> None:
        """Give up what is held; the artifact is complete only after `finish`."""


def quantise(samples: Samples) -> NDArray[np.int16]:
    """Round to 16 bits, to the nearest step.

    Without dither: a voice's own noise lies far above the last bit, pauses stay digital silence, and equal samples give
    equal bytes.
    """
    steps: NDArray[np.int16] = np.rint(samples * np.float32(_INT16_FULL_SCALE)).astype("<i2")
    return steps


def _write(artifact: BinaryIO, data: bytes) -> None:
    try:
        artifact.write(data)
    except (OSError, ValueError) as error:  # ValueError: the caller has closed it
        raise EncodingError(f"The artifact could not be written: {error}") from error


def _overwrite(artifact: BinaryIO, position: int, data: bytes) -> None:
    try:
        artifact.seek(position)
        artifact.write(data)
        artifact.seek(0, io.SEEK_END)
    except (OSError, ValueError) as error:  # ValueError: the caller has closed it
        raise EncodingError(f"The artifact could not be written: {error}") from error


class _PcmEncoder(Encoder):
    def __init__(self, artifact: BinaryIO) -> None:
        self._artifact = artifact

    def write(self, samples: Samples) -> bytes:
        data = quantise(samples).tobytes()
        self.frames += len(samples)
        _write(self._artifact, data)
        return data

    def finish(self) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing is held."""

    @property
    def decodable_frames(self) -> int:
        return self.frames


class _WavEncoder(_PcmEncoder):
    """With its own header: the one libsndfile starts with states a length, which the listener would believe."""

    def __init__(self, artifact: BinaryIO, sample_rate_hz: int) -> None:
        super().__init__(artifact)
        self._sample_rate_hz = sample_rate_hz
        self._unsent = _wav_header(sample_rate_hz, None)
        _write(artifact, self._unsent)

    def write(self, samples: Samples) -> bytes:
        unsent, self._unsent = self._unsent, b""
        return unsent + super().write(samples)

    def finish(self) -> bytes:
        _overwrite(self._artifact, 0, _wav_header(self._sample_rate_hz, self.frames))
        unsent, self._unsent = self._unsent, b""
        return unsent


def _wav_header(sample_rate_hz: int, frames: int | None) -> bytes:
    """RIFF up to the samples; `frames` None: of unknown length."""
    information = {b"ICMT": SYNTHETIC_COMMENT, b"ISFT": SOFTWARE}
    texts = b"".join(_riff_chunk(name, text.encode() + b"\0") for name, text in information.items())
    before = (
        b"WAVE"
        + _riff_chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, sample_rate_hz, 2 * sample_rate_hz, 2, 16))
        + _riff_chunk(b"LIST", b"INFO" + texts)
    )
    data_bytes = _UNKNOWN_SIZE if frames is None else 2 * frames
    riff_bytes = _UNKNOWN_SIZE if frames is None else len(before) + 8 + data_bytes
    return struct.pack("<4sI", b"RIFF", riff_bytes) + before + struct.pack("<4sI", b"data", data_bytes)


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body + b"\0" * (len(body) % 2)


class _Sink(io.RawIOBase):
    """The file libsndfile writes. New bytes go to the artifact and the listener; what it writes over, to the artifact.

    libsndfile calls from C, where an exception would be lost: the first error is kept for the encoder to raise.
    """

    def __init__(self, artifact: BinaryIO, translate: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._artifact = artifact
        self._translate = translate
        self._position = self._end = 0
        self._unsent = bytearray()
        self.error: EncodingError | None = None

    def write(self, data: Any) -> int:
        raw = bytes(data)
        try:
            if self._position == self._end:
                new = self._translate(raw)
                _write(self._artifact, new)
                self._unsent += new
            else:
                _overwrite(self._artifact, self._position, raw)
        except EncodingError as error:
            self.error = self.error or error
            return 0
        self._position += len(raw)
        self._end = max(self._end, self._position)
        return len(raw)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def drain(self) -> bytes:
        data = bytes(self._unsent)
        self._unsent.clear()
        return data


class _SoundFileEncoder(Encoder):
    """What libsndfile encodes."""

    def __init__(
        self,
        artifact: BinaryIO,
        sample_rate_hz: int,
        *,
        container: str,
        codec: str,
        translate: Callable[[bytes], bytes] = bytes,
        **options: Any,
    ) -> None:
        self._sink = _Sink(artifact, translate)
        self._file = soundfile.SoundFile(
            self._sink, "w", samplerate=sample_rate_hz, channels=1, format=container, subtype=codec, **options
        )
        self._file.comment = SYNTHETIC_COMMENT  # before the first sample, or it is not stored
        self._file.software = SOFTWARE

    def write(self, samples: Samples) -> bytes:
        self._call(lambda: self._file.write(self._convert(samples)))
        self.frames += len(samples)
        return self._for_listener(self._sink.drain())

    def finish(self) -> bytes:
        self._call(self._file.close)
        return self._for_listener(self._sink.drain())

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()

    def _convert(self, samples: Samples) -> NDArray[Any]:
        return samples

    def _for_listener(self, data: bytes) -> bytes:
        return data

    def _call(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (soundfile.SoundFileError, AssertionError) as error:  # it asserts that all was written
            raise self._sink.error or EncodingError(f"libsndfile could not encode: {error}") from error
        if self._sink.error is not None:
            raise self._sink.error


class _FlacEncoder(_SoundFileEncoder):
    def __init__(self, artifact: BinaryIO, sample_rate_hz: int) -> None:
        super().__init__(artifact, sample_rate_hz, container="FLAC", codec="PCM_16")

    def _convert(self, samples: Samples) -> NDArray[Any]:
        return quantise(samples)

    @property
    def decodable_frames(self) -> int:
        # libFLAC codes a block when it has seen one sample more.
        return max(0, self.frames - 1) // _FLAC_BLOCK_FRAMES * _FLAC_BLOCK_FRAMES


class _Mp3Encoder(_SoundFileEncoder):
    """Constant bit rate (64 kbit/s below 32 kHz, 128 above): players of a stream then compute its length rightly.

    LAME starts with a frame of zeros, and at the end puts the exact length there. The listener, for whom nothing is
    replaced, would hear it as silence, so it is left out: a stream starts with the 1105 samples of the coder's delay,
    which players of the file know to skip.
    """

    def __init__(self, artifact: BinaryIO, sample_rate_hz: int) -> None:
        level = 0.65 if sample_rate_hz >= _MPEG1_LOWEST_RATE_HZ else 0.6
        super().__init__(
            artifact,
            sample_rate_hz,
            container="MP3",
            codec="MPEG_LAYER_III",
            bitrate_mode="CONSTANT",
            compression_level=level,
        )
        self._start: bytes | None = b""  # the listener's bytes up to the end of that frame; None once it is passed

    @property
    def decodable_frames(self) -> int:
        return max(0, self.frames - _MP3_HELD_FRAMES)

    def _for_listener(self, data: bytes) -> bytes:
        if self._start is None:
            return data
        self._start += data
        first = _id3_bytes(self._start)
        if first is None or len(self._start) < first + _MPEG_HEADER_BYTES:
            return b""
        second = first + _mpeg_frame_bytes(self._start[first : first + _MPEG_HEADER_BYTES])
        if len(self._start) < second:
            return b""
        ready, self._start = self._start[:first] + self._start[second:], None
        return ready


def _id3_bytes(data: bytes) -> int | None:
    """Length of the ID3v2 tag that `data` begins with; None if that cannot be told yet."""
    if len(data) < _ID3_HEADER_BYTES:
        return None
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte
    return _ID3_HEADER_BYTES + size


def _mpeg_frame_bytes(header: bytes) -> int:
    """Length of the layer III frame with this header, of MPEG-1 or MPEG-2."""
    bits = int.from_bytes(header, "big")
    is_mpeg1 = bits >> 19 & 1
    kbits = (_MPEG1_KBITS if is_mpeg1 else _MPEG2_KBITS)[bits >> 12 & 15]
    rate_hz = _MPEG1_RATES_HZ[bits >> 10 & 3] // (1 if is_mpeg1 else 2)
    return (144 if is_mpeg1 else 72) * kbits * 1000 // rate_hz + (bits >> 9 & 1)


class _OpusEncoder(_SoundFileEncoder):
    """Ogg Opus. libsndfile draws the stream's serial number at random; ours makes equal sound equal bytes."""

    def __init__(self, artifact: BinaryIO, sample_rate_hz: int, stream_serial: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._pages = _OggPages(stream_serial)
        super().__init__(artifact, sample_rate_hz, container="OGG", codec="OPUS", translate=self._pages.translate)
        # soundfile has no public name for this command; `tests/synthesis/test_encoding.py` sees it work.
        latency = soundfile._ffi.new("double*", _OGG_PAGE_MS)
        soundfile._snd.sf_command(self._file._file, _SFC_SET_OGG_PAGE_LATENCY_MS, latency, 8)

    @property
    def decodable_frames(self) -> int:
        return self._pages.granules * self._sample_rate_hz // _OPUS_CLOCK_HZ


class _OggPages:
    """Passes whole Ogg pages on with another serial number (RFC 3533, section 6)."""

    _HEADER = struct.Struct("<4sBBqIIIB")
    _SERIAL_AT, _CHECKSUM_AT = 14, 22

    def __init__(self, serial: int) -> None:
        self._serial = serial
        self._incomplete = b""
        self._skipped = 0  # samples of the coder's start-up, which nobody hears (RFC 7845: pre-skip)
        self.granules = 0  # samples at 48 kHz that the pages so far hold

    def translate(self, data: bytes) -> bytes:
        self._incomplete += data
        pages = bytearray()
        while (length := self._page_bytes()) is not None:
            page, self._incomplete = bytearray(self._incomplete[:length]), self._incomplete[length:]
            self._count(page)
            struct.pack_into("<I", page, self._SERIAL_AT, self._serial)
            struct.pack_into("<I", page, self._CHECKSUM_AT, 0)
            struct.pack_into("<I", page, self._CHECKSUM_AT, _ogg_checksum(page))
            pages += page
        return bytes(pages)

    def _page_bytes(self) -> int | None:
        """Length of the page that comes next; None while it is not all there."""
        head = self._HEADER.size
        if len(self._incomplete) < head:
            return None
        segments = self._incomplete[head - 1]
        length = head + segments + sum(self._incomplete[head : head + segments])
        return length if len(self._incomplete) >= length else None

    def _count(self, page: bytearray) -> None:
        head = page.find(b"OpusHead", 0, 64)
        if head >= 0:
            (self._skipped,) = struct.unpack_from("<H", page, head + 10)
        granule = self._HEADER.unpack_from(page)[3]
        self.granules = max(self.granules, granule - self._skipped)


_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes | bytearray) -> int:
    """CRC-32 of Ogg: zlib's polynomial, but with the bits in the other order and without its inversions."""
    mirrored = zlib.crc32(bytes(page).translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
