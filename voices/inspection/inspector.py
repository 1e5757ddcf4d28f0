"""One upload from its bytes to the PCM that is kept and the report about it. Runs in the limited child."""

from __future__ import annotations

import os

import numpy as np

from voices.errors import AudioNoSpeechError, AudioSilentError, AudioTooLargeError, AudioTooShortError
from voices.inspection.advice import Findings, judge
from voices.inspection.containers import check_declaration, identify
from voices.inspection.decoding import decode
from voices.inspection.limits import MAX_UPLOAD_BYTES, MIN_REFERENCE_SECONDS
from voices.inspection.measuring import (
    decibels,
    measure_bandwidth,
    measure_envelope,
    measure_loudness,
    measure_noise,
    measure_voicing,
)
from voices.inspection.report import QualityReport
from voices.inspection.window import choose_window

_MIN_ACTIVE_LEVEL_DBFS = -60.0
_MIN_VOICED_SHARE = 0.05
_STEADY_RANGE_DB = 8.0


def inspect(descriptor: int, *, extension: str, content_type: str) -> tuple[bytes, int, QualityReport]:
    """The chosen window as little-endian 16-bit mono PCM, its sample rate in Hz, and the report.

    Raises UploadRejectedError in one of its forms.
    """
    data = os.pread(descriptor, MAX_UPLOAD_BYTES + 1, 0)
    if len(data) > MAX_UPLOAD_BYTES:
        raise AudioTooLargeError("The file is too large.", limit_bytes=MAX_UPLOAD_BYTES)
    audio = identify(data)
    check_declaration(audio, extension=extension, content_type=content_type)
    size_bytes = len(data)
    del data
    decoded = decode(descriptor, audio, size_bytes=size_bytes)

    rate = decoded.sample_rate_hz
    if decoded.seconds < MIN_REFERENCE_SECONDS:
        raise AudioTooShortError(
            f"The recording is {decoded.seconds:.2f} seconds long; at least {MIN_REFERENCE_SECONDS:.0f} are needed.",
            seconds=round(decoded.seconds, 3),
            minimum_seconds=MIN_REFERENCE_SECONDS,
        )
    envelope = measure_envelope(decoded.samples, rate)
    hop, active = envelope.hop, envelope.is_active
    active_level = decibels(float(envelope.power[active].mean())) if active.any() else decibels(0.0)
    if active_level < _MIN_ACTIVE_LEVEL_DBFS:
        raise AudioSilentError(
            "The recording is silent.",
            peak_dbfs=round(decibels(decoded.peak**2), 1),
            examined_seconds=round(decoded.seconds, 3),
        )
    start, end = choose_window(envelope, decoded.clipped, sample_count=len(decoded.samples), sample_rate_hz=rate)
    first, last = start // hop, -(-end // hop)
    samples, window_active = decoded.samples[start:end], active[first:last]
    voiced_share = measure_voicing(samples, rate, window_active, hop)
    if voiced_share < _MIN_VOICED_SHARE and envelope.range_db < _STEADY_RANGE_DB:
        raise AudioNoSpeechError(
            "There is sound in the recording but no voice, only steady noise.", voiced_share=round(voiced_share, 3)
        )
    speech_level, noise_floor = measure_noise(envelope, first, last)
    findings = Findings(
        is_examined_fully=decoded.is_complete,
        original_seconds=decoded.seconds,
        used_seconds=len(samples) / rate,
        speech_seconds=float(window_active.sum()) * hop / rate,
        voiced_share=voiced_share,
        clipping_share=float(decoded.clipped[first:last].sum()) / (len(samples) * decoded.original_rate_hz / rate),
        active_level_dbfs=speech_level,
        snr_db=max(speech_level - noise_floor, 0.0),
        bandwidth_hz=measure_bandwidth(samples, rate, window_active, hop),
        range_db=envelope.range_db,
    )
    score, advice = judge(findings)
    report = QualityReport(
        container=audio.container,
        codec=audio.codec,
        channels=decoded.channels,
        sample_rate_hz=decoded.original_rate_hz,
        original_seconds=round(decoded.seconds, 3),
        is_examined_fully=decoded.is_complete,
        silence_share=round(1 - float(active.mean()), 3),
        start_seconds=round(start / rate, 3),
        end_seconds=round(end / rate, 3),
        speech_seconds=round(findings.speech_seconds, 2),
        voiced_share=round(voiced_share, 3),
        clipping_share=round(findings.clipping_share, 5),
        peak_dbfs=round(decibels(float(np.abs(samples).max()) ** 2), 1),
        active_level_dbfs=round(speech_level, 1),
        loudness_lufs=round(measure_loudness(samples, rate), 1),
        noise_floor_dbfs=round(noise_floor, 1),
        snr_db=round(findings.snr_db, 1),
        bandwidth_hz=findings.bandwidth_hz,
        score=score,
        advice=advice,
    )
    # 32768, as in the decoder: 16-bit mono comes out as it went in
    pcm = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype("<i2").tobytes()
    return pcm, rate, report
