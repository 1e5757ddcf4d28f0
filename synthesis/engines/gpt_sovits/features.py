"""Audio to what the networks hear: resampling, spectrograms, mel bands, and the reference clip's three forms.

Everything is float32 whatever the models run in: a spectrogram in half precision loses quiet bins. Audio is mono, full
scale is +-1. Letters in shapes: B batch, N samples, F frames.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from synthesis.engines.base import ReferenceAudio
from synthesis.engines.errors import UnusableReferenceError
from synthesis.engines.gpt_sovits.config import CONTENT_RATE_HZ, SAMPLE_RATE_HZ

# The reference clip: upstream TTS.py, _set_prompt_semantic and _get_ref_spec.
MIN_REFERENCE_SAMPLES = 48_000  # at 16 kHz: 3 s
MAX_REFERENCE_SAMPLES = 160_000  # at 16 kHz: 10 s
TRAILING_SILENCE_SAMPLES = 9_600  # 0.3 s of the *output* rate, appended at 16 kHz: 0.6 s there, and codes depend on it
SILENT_PEAK = 1e-4  # -80 dBFS: below the noise of any microphone, and nothing to learn a voice from

# torchaudio.functional.resample's defaults (sinc_interp_hann).
SINC_ZERO_CROSSINGS = 6
SINC_ROLLOFF = 0.99
RESAMPLED_BLOCK = 1 << 15  # output samples at a time: some 10 MB of taps

REFERENCE_FFT = 2048
REFERENCE_HOP = 640
MAGNITUDE_FLOOR = 1e-8  # inside the root

# Kaldi's compute-fbank-feats at 16 kHz with its default options, 80 bands, no dither.
FBANK_WINDOW = 400  # 25 ms
FBANK_HOP = 160  # 10 ms
FBANK_FFT = 512
FBANK_BANDS = 80
FBANK_LOWEST_HZ = 20.0
FBANK_PREEMPHASIS = 0.97

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class MelScale:
    """Mel bands of a magnitude spectrogram, 0 Hz to the Nyquist frequency."""

    sample_rate_hz: int
    fft_samples: int  # and window
    hop_samples: int
    bands: int = 100


MEL_V3 = MelScale(sample_rate_hz=24_000, fft_samples=1024, hop_samples=256)
MEL_V4 = MelScale(sample_rate_hz=32_000, fft_samples=1280, hop_samples=320)
LOG_MEL_LOWEST, LOG_MEL_HIGHEST = -12.0, 2.0  # upstream spec_min, spec_max: -1 and 1 to the flow-matching network


# --- resampling ---------------------------------------------------------------------------------------------------


def resample(audio: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Windowed-sinc resampling, (..., N) at `from_hz` to (..., ceil(N * to / from)) at `to_hz`.

    Equal to torchaudio's default. Each output sample is one row of taps against the input around it, so the cost
    does not depend on whether the rates have a common divisor (44,101 Hz costs what 44,100 Hz does). N is at least 1.
    """
    if from_hz == to_hz:
        return audio
    divisor = math.gcd(from_hz, to_hz)
    step, phases = from_hz // divisor, to_hz // divisor
    taps, offsets = _sinc_taps(step, phases, audio.device)  # (phases, K), (phases,)
    reach = taps.shape[1] // 2
    length = -(-audio.shape[-1] * phases // step)
    windows = functional.pad(audio, (reach, reach)).unfold(-1, taps.shape[1], 1)  # (..., N, K), a view
    blocks = []
    for output in torch.split(torch.arange(length, device=audio.device), RESAMPLED_BLOCK):
        phase = output % phases
        first = output // phases * step + offsets[phase]
        blocks.append((windows[..., first, :] * taps[phase]).sum(-1))
    return torch.cat(blocks, dim=-1)


@functools.lru_cache(maxsize=16)
def _sinc_taps(step: int, phases: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Taps (phases, K), float32, and the input sample under each row's centre (phases,), counted from its block."""
    cutoff = min(step, phases) * SINC_ROLLOFF
    reach = math.ceil(SINC_ZERO_CROSSINGS * step / cutoff)
    position = torch.arange(phases, dtype=torch.float64)[:, None] * step / phases  # of the output, in input samples
    centre = torch.arange(phases)[:, None] * step // phases
    sample = centre + torch.arange(-reach, reach + 1)
    time = ((sample - position) * cutoff / step).clamp(-SINC_ZERO_CROSSINGS, SINC_ZERO_CROSSINGS)
    window = torch.cos(time * math.pi / (2 * SINC_ZERO_CROSSINGS)).square()
    taps = torch.sinc(time) * window * (cutoff / step)
    return taps.float().to(device), centre[:, 0].to(device)


# --- spectrograms -------------------------------------------------------------------------------------------------


def magnitude_spectrogram(audio: Tensor, fft_samples: int, hop_samples: int) -> Tensor:
    """(B, N) to (B, fft/2 + 1, F), F = N // hop for clips longer than half a window.

    Periodic Hann window as long as the transform; (fft - hop) / 2 samples are reflected at each end.
    """
    edge = (fft_samples - hop_samples) // 2
    padded = functional.pad(audio[:, None], (edge, edge), mode="reflect")[:, 0]
    window = _hann(fft_samples, audio.device)
    spectrum = torch.stft(padded, fft_samples, hop_length=hop_samples, window=window, center=False, return_complex=True)
    return torch.sqrt(torch.view_as_real(spectrum).square().sum(-1) + MAGNITUDE_FLOOR)


def reference_spectrogram(audio: Tensor) -> Tensor:
    """(B, N) at 32 kHz to (B, 1025, F): what the style encoder hears."""
    return magnitude_spectrogram(audio, REFERENCE_FFT, REFERENCE_HOP)


def log_mel(audio: Tensor, scale: MelScale) -> Tensor:
    """(B, N) at the scale's rate to (B, bands, F): natural logarithm of the mel magnitudes, not below log(1e-5)."""
    magnitude = magnitude_spectrogram(audio, scale.fft_samples, scale.hop_samples)
    return torch.matmul(_slaney_bands(scale, audio.device), magnitude).clamp(min=1e-5).log()


def normalize_mel(mel: Tensor) -> Tensor:
    """Natural-logarithm mel bands to the range the v3 and v4 networks know."""
    return (mel - LOG_MEL_LOWEST) / (LOG_MEL_HIGHEST - LOG_MEL_LOWEST) * 2 - 1


def kaldi_fbank(audio: Tensor) -> Tensor:
    """(B, N) at 16 kHz, N >= 400, to (B, F, 80), F = 1 + (N - 400) // 160: log mel powers for the speaker network.

    As Kaldi's fbank, of samples of full scale +-1 (not +-32768) and without mean subtraction, as upstream calls it.
    """
    frames = audio.unfold(-1, FBANK_WINDOW, FBANK_HOP)  # (B, F, 400)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
    frames = (frames - FBANK_PREEMPHASIS * before) * _povey(audio.device)
    power = torch.fft.rfft(frames, n=FBANK_FFT).abs().square()  # (B, F, 257)
    energies = torch.matmul(power, _kaldi_bands(audio.device))
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


@functools.lru_cache(maxsize=16)
def _hann(samples: int, device: torch.device) -> Tensor:
    return torch.hann_window(samples, device=device)


@functools.lru_cache(maxsize=4)
def _povey(device: torch.device) -> Tensor:
    return torch.hann_window(FBANK_WINDOW, periodic=False, device=device).pow(0.85)


@functools.lru_cache(maxsize=8)
def _slaney_bands(scale: MelScale, device: torch.device) -> Tensor:
    """(bands, fft/2 + 1): triangles of equal area on Slaney's Auditory Toolbox scale, as librosa's default `mel`."""
    edges_hz = _slaney_to_hz(np.linspace(0.0, _hz_to_slaney(scale.sample_rate_hz / 2), scale.bands + 2))
    bins_hz = np.linspace(0.0, scale.sample_rate_hz / 2, scale.fft_samples // 2 + 1)
    distance = edges_hz[:, None] - bins_hz  # (bands + 2, bins)
    widths = np.diff(edges_hz)[:, None]
    rising, falling = -distance[:-2] / widths[:-1], distance[2:] / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32)).to(device)


# Slaney's scale: linear below 1 kHz (3 mel for 200 Hz), above it 27 mel for a factor of 6.4.
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_KNEE_MEL = 15.0
_SLANEY_LOG_STEP = math.log(6.4) / 27


def _hz_to_slaney(hz: float) -> float:
    if hz < _SLANEY_KNEE_HZ:
        return hz * 3 / 200
    return _SLANEY_KNEE_MEL + math.log(hz / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP


def _slaney_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (mel - _SLANEY_KNEE_MEL))
    return np.where(mel < _SLANEY_KNEE_MEL, mel * 200 / 3, above)


@functools.lru_cache(maxsize=4)
def _kaldi_bands(device: torch.device) -> Tensor:
    """(257, 80): triangles on the mel scale itself (not in hertz), 20 Hz to the Nyquist frequency."""

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127.0 * np.log1p(hz / 700.0)

    lowest, highest = mel(np.array([FBANK_LOWEST_HZ, CONTENT_RATE_HZ / 2]))
    edges = np.linspace(lowest, highest, FBANK_BANDS + 2)
    bins = mel(np.linspace(0.0, CONTENT_RATE_HZ / 2, FBANK_FFT // 2 + 1))[:, None]  # (257, 1)
    width = edges[1] - edges[0]
    triangles = np.maximum(0.0, np.minimum((bins - edges[:-2]) / width, (edges[2:] - bins) / width))
    return torch.from_numpy(triangles.astype(np.float32)).to(device)


# --- the reference clip -------------------------------------------------------------------------------------------


def prompt_audio(reference: ReferenceAudio, *, device: torch.device = CPU) -> Tensor:
    """The clip as the content encoder hears it: (1, N + 9600) at 16 kHz, 0.6 s of silence at the end.

    Resampled by soxr, as the codes of released models were. Raises UnusableReferenceError.
    """
    check_reference(reference)
    samples = reference.samples
    if reference.sample_rate_hz != CONTENT_RATE_HZ:
        samples = soxr.resample(samples, reference.sample_rate_hz, CONTENT_RATE_HZ, quality="HQ")
    prompt = torch.zeros(1, _content_samples(reference) + TRAILING_SILENCE_SAMPLES)
    kept = min(len(samples), prompt.shape[1] - TRAILING_SILENCE_SAMPLES)  # soxr may round the length the other way
    prompt[0, :kept] = torch.from_numpy(samples[:kept])
    return prompt.to(device)


def style_audio(reference: ReferenceAudio, *, device: torch.device = CPU) -> Tensor:
    """The clip as the style encoder hears it: (1, N) at 32 kHz, a peak above 1 scaled down by at most 2.

    `reference_spectrogram` of it is the encoder's input, `speaker_audio` of it the speaker network's.
    Raises UnusableReferenceError.
    """
    check_reference(reference)
    audio = torch.from_numpy(np.array(reference.samples, dtype=np.float32))[None].to(device)
    audio = resample(audio, reference.sample_rate_hz, SAMPLE_RATE_HZ)
    peak = float(audio.abs().max())
    return audio / min(2.0, peak) if peak > 1 else audio


def speaker_audio(style: Tensor) -> Tensor:
    """(B, N) at 32 kHz to (B, N/2) at 16 kHz; `kaldi_fbank` of it is the speaker network's input."""
    return resample(style, SAMPLE_RATE_HZ, CONTENT_RATE_HZ)


def check_reference(reference: ReferenceAudio) -> None:
    """Raises UnusableReferenceError for a clip outside 3-10 s (details: `seconds`), a silent or a broken one."""
    seconds = round(len(reference.samples) / reference.sample_rate_hz, 3)
    if not MIN_REFERENCE_SAMPLES <= _content_samples(reference) <= MAX_REFERENCE_SAMPLES:
        raise UnusableReferenceError(
            f"The reference clip is {seconds:.2f} s long; it must be 3 to 10 s.", seconds=seconds
        )
    peak = float(np.abs(reference.samples).max())
    if not math.isfinite(peak):
        raise UnusableReferenceError("The reference clip holds samples that are not numbers.", seconds=seconds)
    if peak < SILENT_PEAK:
        raise UnusableReferenceError("The reference clip is silent.", seconds=seconds)


def _content_samples(reference: ReferenceAudio) -> int:
    return math.ceil(len(reference.samples) * CONTENT_RATE_HZ / reference.sample_rate_hz)
