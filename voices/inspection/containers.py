"""What kind of file an upload is, read from its own bytes, and where its audio ends.

Everything here is arithmetic on a `bytes` object; no library is asked before the shape of the file has been checked.
"""

from __future__ import annotations

import mimetypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from voices.errors import (
    AudioEmptyError,
    AudioFormatMismatchError,
    AudioTrailingDataError,
    AudioUnreadableError,
    UnsupportedAudioFormatError,
    UnsupportedChannelsError,
    UnsupportedSampleRateError,
)
from voices.inspection.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ, MAX_TRAILING_BYTES, MIN_SAMPLE_RATE_HZ

SUPPORTED = ("wav", "flac", "ogg", "mp3")

_EXTENSIONS = {
    ".wav": "wav",
    ".wave": "wav",
    ".flac": "flac",
    ".ogg": "ogg",
    ".oga": "ogg",
    ".opus": "ogg",
    ".mp3": "mp3",
    ".mpga": "mp3",
}
_CONTENT_TYPES = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/x-pn-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/ogg": "ogg",
    "audio/x-ogg": "ogg",
    "audio/opus": "ogg",
    "audio/vorbis": "ogg",
    "audio/x-vorbis+ogg": "ogg",
    "audio/x-opus+ogg": "ogg",
    "application/ogg": "ogg",
    "video/ogg": "ogg",  # what Firefox says of every .ogg file
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/x-mp3": "mp3",
    "audio/mpg": "mp3",
    "audio/x-mpeg": "mp3",
    "audio/mpeg3": "mp3",
    "audio/x-mpeg-3": "mp3",
}
_NEUTRAL_CONTENT_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream"})
# The machine's own MIME tables would make the answer depend on what is installed.
_KNOWN_TYPES = mimetypes.MimeTypes(filenames=())

# Only to name the mistake in the error message: what people upload instead of audio.
_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"GIF8", "a picture"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
    (4, b"ftyp", "an MP4 or M4A file"),
    (0, b"FORM", "an AIFF file"),
    (0, b"RF64", "a 64-bit WAV file (RF64)"),
    (0, b"BW64", "a 64-bit WAV file (BW64)"),
    (0, b"RIFX", "a big-endian WAV file (RIFX)"),
    (0, b"RIFF", "a RIFF file without audio"),
    (0, b".snd", "an AU file"),
    (0, b"#!AMR", "an AMR file"),
)


@dataclass(frozen=True, slots=True)
class AudioFile:
    """What the file says about itself, checked against its size. `is_length_known` is False for a streamed FLAC."""

    container: str
    codec: str
    channels: int
    sample_rate_hz: int
    is_length_known: bool = True


def identify(data: bytes) -> AudioFile:
    """Raises AudioEmptyError, UnsupportedAudioFormatError, AudioUnreadableError, AudioTrailingDataError,
    UnsupportedSampleRateError, UnsupportedChannelsError."""
    if not data:
        raise AudioEmptyError("The file is empty (0 bytes).")
    start = _skip_id3(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        audio = _read_wav(data)
    elif data[start : start + 4] == b"fLaC":
        audio = _read_flac(data, start)
    elif data[:4] == b"OggS":
        audio = _read_ogg(data)
    elif (first := _find_mp3(data, start)) is not None:
        audio = _read_mp3(data, first)
    else:
        raise _unsupported(_describe(data))
    if not MIN_SAMPLE_RATE_HZ <= audio.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise UnsupportedSampleRateError(
            f"A sample rate of {audio.sample_rate_hz} Hz is outside {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz.",
            sample_rate_hz=audio.sample_rate_hz,
            minimum_hz=MIN_SAMPLE_RATE_HZ,
            maximum_hz=MAX_SAMPLE_RATE_HZ,
        )
    if not 1 <= audio.channels <= MAX_CHANNELS:
        raise UnsupportedChannelsError(
            f"The file has {audio.channels} channels; 1 to {MAX_CHANNELS} are supported.",
            channels=audio.channels,
            maximum=MAX_CHANNELS,
        )
    return audio


def check_declaration(audio: AudioFile, *, extension: str, content_type: str) -> None:
    """Raise AudioFormatMismatchError when a file name or content type that says something says something else."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in _NEUTRAL_CONTENT_TYPES and _CONTENT_TYPES.get(media_type) != audio.container:
        raise _mismatch(audio, f"content type {media_type}", media_type)
    if extension in _EXTENSIONS:
        agrees = _EXTENSIONS[extension] == audio.container
    else:  # `.html` is a claim, `.take2` is part of a name
        known_type = _KNOWN_TYPES.guess_type("file" + extension)[0]
        agrees = known_type is None or known_type in _NEUTRAL_CONTENT_TYPES
    if not agrees:
        raise _mismatch(audio, f"file name ending {extension}", extension)


def check_trailing(trailing_bytes: int) -> None:
    """Raise AudioTrailingDataError when more than tags follows (or interrupts) the audio."""
    if trailing_bytes > MAX_TRAILING_BYTES:
        raise AudioTrailingDataError(
            f"{trailing_bytes} bytes that are not audio are mixed into the file. Save the recording as a new file.",
            trailing_bytes=trailing_bytes,
            limit_bytes=MAX_TRAILING_BYTES,
        )


def _mismatch(audio: AudioFile, what: str, declared: str) -> AudioFormatMismatchError:
    return AudioFormatMismatchError(
        f"The {what} does not fit the content, which is {audio.container.upper()}.",
        detected=audio.container,
        declared=declared[:100],
    )


def _unsupported(detected: str) -> UnsupportedAudioFormatError:
    return UnsupportedAudioFormatError(
        f"This is {detected}. Upload WAV, FLAC, Ogg (Opus or Vorbis) or MP3.", detected=detected, supported=SUPPORTED
    )


def _describe(data: bytes) -> str:
    for offset, magic, name in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            return name
    head = data[:512]
    if head.lstrip()[:1] == b"<":
        return "an HTML or XML document"
    if all(byte >= 0x20 or byte in b"\t\r\n" for byte in head):
        return "a text file"
    return "not a known audio file"


# --- WAV ------------------------------------------------------------------------------------------------------------

_WAV_CODECS = {  # (format tag, bits per sample); everything else is a codec within WAV that is not worth its risk
    (1, 8): "pcm_u8",
    (1, 16): "pcm_s16",
    (1, 24): "pcm_s24",
    (1, 32): "pcm_s32",
    (3, 32): "pcm_f32",
    (3, 64): "pcm_f64",
    (6, 8): "a_law",
    (7, 8): "mu_law",
}
_EXTENSIBLE = 0xFFFE
_MAX_CHUNKS = 1000


def _read_wav(data: bytes) -> AudioFile:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise AudioUnreadableError(
            "The WAV header promises more bytes than the file has: it is cut off, or it was written by a program that "
            "never filled in its size. Open it in an audio editor and save it again.",
            promised_bytes=end,
            size_bytes=len(data),
        )
    check_trailing(len(data) - end)
    layout: tuple[str, int, int, int] | None = None
    data_bytes: int | None = None
    for identifier, start, size in _riff_chunks(data, 12, end):
        if identifier in (b"RIFF", b"RIFX", b"RF64"):
            raise AudioUnreadableError("The WAV file holds another RIFF file inside.")
        if identifier == b"LIST":  # libsndfile 1.2.2 is reported to hang on a false size inside (its issue 1118)
            for _ in _riff_chunks(data, start + 4, start + size):
                pass
        elif identifier == b"fmt ":
            if layout is not None:
                raise AudioUnreadableError("The WAV file describes its format twice.")
            layout = _read_wav_format(data[start : start + size])
        elif identifier == b"data":
            if data_bytes is not None or layout is None:
                raise AudioUnreadableError("The parts of the WAV file are in an impossible order.")
            data_bytes = size
    if layout is None or data_bytes is None:
        raise AudioUnreadableError("The WAV file has no audio part.")
    codec, channels, sample_rate_hz, frame_bytes = layout
    if data_bytes < frame_bytes:
        raise AudioEmptyError("The WAV file holds no samples.")
    return AudioFile("wav", codec, channels, sample_rate_hz)


def _riff_chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    count = 0
    while position + 8 <= end:
        identifier, size = struct.unpack_from("<4sI", data, position)
        position += 8
        count += 1
        if position + size > end or count > _MAX_CHUNKS:
            raise AudioUnreadableError("A part of the WAV file is longer than the file.", promised_bytes=size)
        yield identifier, position, size
        position += size + size % 2  # parts start at even offsets


def _read_wav_format(chunk: bytes) -> tuple[str, int, int, int]:
    """Codec, channels, sample rate in Hz, bytes per frame."""
    if len(chunk) < 16:
        raise AudioUnreadableError("The WAV file's format is incomplete.")
    tag, channels, sample_rate_hz, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE:
        if len(chunk) < 40:
            raise AudioUnreadableError("The WAV file's format is incomplete.")
        (tag,) = struct.unpack_from("<H", chunk, 24)
    codec = _WAV_CODECS.get((tag, bits))
    if codec is None:
        raise _unsupported(f"WAV with codec {tag} at {bits} bits")
    if frame_bytes != channels * bits // 8:
        raise AudioUnreadableError("The WAV file contradicts itself about the size of a sample.")
    return codec, channels, sample_rate_hz, max(frame_bytes, 1)


# --- FLAC -----------------------------------------------------------------------------------------------------------


def _read_flac(data: bytes, start: int) -> AudioFile:
    """RFC 9639, section 8. Where the audio ends is only known after decoding, see `decoding`."""
    position, is_last = start + 4, False
    stream_info = b""
    while not is_last:
        header = data[position : position + 4]
        if len(header) < 4:
            raise AudioUnreadableError("The FLAC file is cut off within its header.")
        is_last, kind, size = bool(header[0] & 0x80), header[0] & 0x7F, int.from_bytes(header[1:4])
        if not stream_info:
            if kind != 0 or size != 34:
                raise AudioUnreadableError("The FLAC file does not begin with its stream information.")
            stream_info = data[position + 4 : position + 4 + size]
        position += 4 + size
        if position > len(data):
            raise AudioUnreadableError("The FLAC file is cut off within its header.")
    packed = int.from_bytes(stream_info[10:18])  # 20 bits rate, 3 channels, 5 sample size, 36 total samples
    return AudioFile(
        "flac",
        "flac",
        channels=((packed >> 41) & 0x7) + 1,
        sample_rate_hz=packed >> 44,
        is_length_known=packed & 0xF_FFFF_FFFF != 0,
    )


# --- Ogg ------------------------------------------------------------------------------------------------------------

_OGG_END_OF_STREAM = 0x04


def _read_ogg(data: bytes) -> AudioFile:
    """RFC 3533, section 6: one logical stream, from its first page to its last."""
    position, serial, first_packet = 0, None, b""
    while data[position : position + 4] == b"OggS" and position + 27 <= len(data):
        flags, page_serial, segments = data[position + 5], data[position + 14 : position + 18], data[position + 26]
        body = position + 27 + segments
        if serial is None:
            serial = page_serial
            first_packet = data[body : body + sum(data[position + 27 : body])]
        elif page_serial != serial:
            raise _unsupported("an Ogg file with several streams")
        position = body + sum(data[position + 27 : body])
        if flags & _OGG_END_OF_STREAM:
            break
    check_trailing(len(data) - position)
    if first_packet[:8] == b"OpusHead" and len(first_packet) >= 19:
        return AudioFile("ogg", "opus", channels=first_packet[9], sample_rate_hz=48_000)  # RFC 7845, section 4
    if first_packet[:7] == b"\x01vorbis" and len(first_packet) >= 30:
        return AudioFile("ogg", "vorbis", first_packet[11], int.from_bytes(first_packet[12:16], "little"))
    raise _unsupported("an Ogg file without Opus or Vorbis audio")


# --- MP3 ------------------------------------------------------------------------------------------------------------

# ISO 11172-3 and 13818-3, layer III: kbit/s by bit-rate index, Hz by rate index.
# The header's version 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5.
_MP3_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_MP3_PROBE_BYTES = 8_192  # padding that taggers leave before the first frame


def _skip_id3(data: bytes) -> int:
    """Offset behind the ID3v2 tags that may precede MP3 and FLAC."""
    position = 0
    while data[position : position + 3] == b"ID3" and position + 10 <= len(data):
        size = 0
        for byte in data[position + 6 : position + 10]:  # 7 bits a byte
            size = size << 7 | byte & 0x7F
        position += 10 + size + (10 if data[position + 5] & 0x10 else 0)
    return position


def _mp3_frame(data: bytes, position: int) -> tuple[int, int, int] | None:
    """Bytes, sample rate in Hz and channels of the layer III frame at `position`, None if there is none."""
    header = data[position : position + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, rate_index, bitrate_index = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or rate_index == 3 or bitrate_index in (0, 15):
        return None
    sample_rate_hz = _MP3_RATES_HZ[version][rate_index]
    kbps = (_MP3_KBPS_1 if version == 3 else _MP3_KBPS_2)[bitrate_index]
    size = (144_000 if version == 3 else 72_000) * kbps // sample_rate_hz + (header[2] >> 1 & 1)
    return size, sample_rate_hz, 1 if header[3] >> 6 == 3 else 2


def _is_mp3_run(data: bytes, position: int) -> bool:
    """True when three frames that agree follow each other: two bytes of any file look like one frame."""
    first = _mp3_frame(data, position)
    second = first and _mp3_frame(data, position + first[0])
    third = first and second and _mp3_frame(data, position + first[0] + second[0])
    return bool(first and second and third and first[1:] == second[1:] == third[1:])


def _find_mp3(data: bytes, start: int) -> int | None:
    position = data.find(b"\xff", start, start + _MP3_PROBE_BYTES)
    while position != -1:
        if _is_mp3_run(data, position):
            return position
        position = data.find(b"\xff", position + 1, start + _MP3_PROBE_BYTES)
    return None


def _read_mp3(data: bytes, first: int) -> AudioFile:
    layout = _mp3_frame(data, first)
    assert layout is not None
    position, foreign_bytes = first, 0
    while position < len(data):
        if (frame := _mp3_frame(data, position)) is not None:
            position += frame[0]
        elif (tag_bytes := _end_tag_bytes(data, position)) > 0:
            position += tag_bytes
        else:  # damage, or another file
            following = _next_mp3_run(data, position + 1, position + 1 + MAX_TRAILING_BYTES - foreign_bytes)
            foreign_bytes += following - position
            check_trailing(foreign_bytes)
            position = following
    return AudioFile("mp3", "mp3", channels=layout[2], sample_rate_hz=layout[1])


def _next_mp3_run(data: bytes, start: int, stop: int) -> int:
    """Where the frames go on, looking for them in [start, stop); the end of the data if they do not."""
    position = data.find(b"\xff", start, stop)
    while position != -1:
        if _is_mp3_run(data, position):
            return position
        position = data.find(b"\xff", position + 1, stop)
    return len(data)


def _end_tag_bytes(data: bytes, position: int) -> int:
    """Size of the ID3v1 or APE tag at `position`, 0 if there is none."""
    if data[position : position + 3] == b"TAG" and len(data) - position == 128:
        return 128
    if data[position : position + 8] == b"APETAGEX" and position + 32 <= len(data):
        return 32 + int.from_bytes(data[position + 12 : position + 16], "little")
    return 0
