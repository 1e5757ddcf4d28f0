"""From the bytes of an upload to one channel of samples, in blocks, up to a limit that no header can move."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from voices.errors import AudioEmptyError, AudioNotFiniteError, AudioUnreadableError, UploadRejectedError
from voices.inspection.containers import AudioFile, check_trailing
from voices.inspection.limits import KEPT_SAMPLE_RATE_HZ, MAX_DECODED_SAMPLES, MAX_EXAMINED_SECONDS

Samples = npt.NDArray[np.float32]

FRAMES_PER_SECOND = 100  # of every measurement: 10 ms

_BLOCK_SAMPLES = 1 << 17  # of all channels together
_STREAMED_BLOCK_SAMPLES = 1 << 12
_LIBSNDFILE_FORMATS = {"wav": ("WAV", "WAVEX"), "flac": ("FLAC",), "ogg": ("OGG",), "mp3": ("MP3",)}

# A channel mix this much weaker than a channel itself means channels that cancel each other, or seven empty ones.
_CANCELLED_RATIO = 0.1

_CLIP_RUN_SAMPLES = 4
_CLIP_MIN_PEAK = 0.25
_CLIP_STEP = 1 / 32768


@dataclass(frozen=True, slots=True)
class Decoded:
    """N mono samples at `sample_rate_hz`, which is at most 48 kHz. The largest magnitude is at most 1."""

    samples: Samples  # (N,)
    sample_rate_hz: int
    original_rate_hz: int
    channels: int
    seconds: float
    is_complete: bool  # False: the file goes on after the limit
    peak: float  # of the file's own samples: float formats and lossy decoders go above 1
    clipped: npt.NDArray[np.int64]  # (frames of 10 ms,) clipped samples of any channel, at the original rate


def decode(descriptor: int, audio: AudioFile, *, size_bytes: int) -> Decoded:
    """Decode the file open at `descriptor`, which holds `size_bytes`.

    Raises AudioUnreadableError whatever the decoder trips over, AudioNotFiniteError, AudioEmptyError,
    AudioTrailingDataError.
    """
    try:
        decoded, energies = _decode_channel(descriptor, audio, size_bytes=size_bytes, channel=None)
        if energies[-1] < _CANCELLED_RATIO * (loudest := max(energies[:-1])) and loudest > 0:
            decoded, _ = _decode_channel(descriptor, audio, size_bytes=size_bytes, channel=energies[:-1].index(loudest))
    except UploadRejectedError:
        raise
    except Exception as error:
        # LibsndfileError, but also ValueError and MemoryError: 3 of 100 damaged files raise what nobody documents.
        raise AudioUnreadableError("The audio is damaged: decoding it fails.", reason=type(error).__name__) from error
    return decoded


def _decode_channel(
    descriptor: int, audio: AudioFile, *, size_bytes: int, channel: int | None
) -> tuple[Decoded, list[float]]:
    """Decode one channel, or the mean of all. Also the energy of each channel and, last, of the samples returned."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with soundfile.SoundFile(descriptor, closefd=False) as file:
        rate, channels = int(file.samplerate), int(file.channels)
        if file.format not in _LIBSNDFILE_FORMATS[audio.container] or channels != audio.channels:
            raise AudioUnreadableError("The file's header and its audio contradict each other.")
        max_frames = min(MAX_EXAMINED_SECONDS * rate, MAX_DECODED_SAMPLES // channels)
        hop = round(rate / FRAMES_PER_SECOND)
        resampler = soxr.ResampleStream(rate, KEPT_SAMPLE_RATE_HZ, 1) if rate > KEPT_SAMPLE_RATE_HZ else None
        kept: list[Samples] = []
        clipped = np.zeros(max_frames // hop + 1, np.int64)
        energies = np.zeros(channels + 1)
        peak, done = 0.0, 0
        for block in _blocks(file, audio, max_frames=max_frames):  # (T, C)
            if not np.isfinite(block).all():
                raise AudioNotFiniteError(
                    "The file holds samples that are not numbers (NaN or infinite).", at_seconds=round(done / rate, 3)
                )
            mono = block.mean(axis=1) if channel is None else block[:, channel].copy()
            # float64: the square of a large 32-bit float is infinite
            energies += [*(np.square(block, dtype=np.float64).sum(axis=0)), np.square(mono, dtype=np.float64).sum()]
            block_peak = float(np.abs(block).max())
            peak = max(peak, block_peak)
            if block_peak >= _CLIP_MIN_PEAK:
                at = np.flatnonzero(_clipped_samples(block, block_peak))
                clipped += np.bincount((at + done) // hop, minlength=len(clipped))
            kept.append(resampler.resample_chunk(mono) if resampler else mono)
            done += len(block)
        is_complete = done < max_frames or done == file.frames
        if is_complete:
            _check_end(file, audio, done=done, trailing_bytes=size_bytes - os.lseek(descriptor, 0, os.SEEK_CUR))
    if resampler:
        kept.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(kept)
    if (mono_peak := float(np.abs(samples).max())) > 1:  # nothing is lost above full scale yet; in 16 bit it would be
        samples /= np.float32(mono_peak)
    decoded = Decoded(
        samples=samples,
        sample_rate_hz=min(rate, KEPT_SAMPLE_RATE_HZ),
        original_rate_hz=rate,
        channels=channels,
        seconds=done / rate,
        is_complete=is_complete,
        peak=peak,
        clipped=clipped[: -(-done // hop)],
    )
    return decoded, [float(energy) for energy in energies]


def _blocks(file: soundfile.SoundFile, audio: AudioFile, *, max_frames: int) -> Iterator[Samples]:
    """Yield (T, C) views of one buffer, valid until the next."""
    block_samples = _BLOCK_SAMPLES if audio.is_length_known else _STREAMED_BLOCK_SAMPLES
    buffer = np.empty((max(block_samples // file.channels, 1), file.channels), np.float32)
    done, end = 0, min(int(file.frames), max_frames)  # asking for one frame more makes the FLAC decoder lose its sync
    while done < end:
        try:
            block = file.read(min(len(buffer), end - done), dtype="float32", always_2d=True, out=buffer[: end - done])
        except soundfile.LibsndfileError:
            if audio.is_length_known or done == 0:
                raise
            return  # a FLAC of unknown length ends with an error; the last tenth of a second is lost
        if len(block) == 0:
            return
        done += len(block)
        yield block


def _check_end(file: soundfile.SoundFile, audio: AudioFile, *, done: int, trailing_bytes: int) -> None:
    if done == 0:
        raise AudioEmptyError("The file holds no samples.")
    if audio.is_length_known and file.frames - done > max(0.5 * file.samplerate, 0.01 * file.frames):
        raise AudioUnreadableError(
            "The file promises more audio than it holds: it is cut off, or its header is wrong.",
            promised_seconds=round(file.frames / file.samplerate, 1),
            seconds=round(done / file.samplerate, 3),
        )
    if audio.container == "flac":  # the decoder reads a few kB ahead, less than what may follow
        check_trailing(trailing_bytes)


def _clipped_samples(block: Samples, peak: float) -> npt.NDArray[np.bool_]:
    """(T, C) -> (T,): where any channel lies flat at its ceiling, or was cut off before a lossy encoder smoothed it."""
    magnitude = np.abs(block)
    over = magnitude > 1.0
    flat = np.zeros_like(over)
    if len(block) >= _CLIP_RUN_SAMPLES:
        flat[1:] = (np.abs(np.diff(block, axis=0)) < _CLIP_STEP) & (magnitude[1:] >= 0.98 * peak)
        # A run of n equal samples has n - 1 small steps; a sine's crest at full scale has shorter ones.
        run = flat[1:-2] & flat[2:-1] & flat[3:]
        flat[:] = False
        for shift in range(_CLIP_RUN_SAMPLES):
            flat[shift : shift + len(run)] |= run
    clipped: npt.NDArray[np.bool_] = np.any(over | flat, axis=1)
    return clipped
