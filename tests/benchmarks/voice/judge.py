"""The ears of the benchmark: words (pocketsphinx), speaker (resemblyzer), pitch (Harvest, and Praat beside it).

The first two are harsh on synthetic speech: use them to compare, not to grade.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import parselmouth
import pyworld
import soxr
from numpy.typing import NDArray
from pocketsphinx import Decoder
from resemblyzer import VoiceEncoder, preprocess_wav

RECOGNISER_RATE_HZ = 16_000
ROOM_NOISE = 3e-4  # 50 dB under the speech
PITCH_FLOOR_HZ, PITCH_CEILING_HZ = 65.0, 600.0

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Substitutions, insertions and deletions against `words` spoken words."""

    errors: int
    words: int


class Judge:
    """Loads the models once. Every answer depends on its arguments alone."""

    def __init__(self) -> None:
        # Batch normalisation: the default one carries state from one utterance into the next.
        self._decoder = Decoder(cmn="batch", loglevel="FATAL")
        self._encoder = VoiceEncoder("cpu", verbose=False)

    def transcribe(self, samples: Samples, rate_hz: int) -> str:
        """What the recogniser hears, as lower-case words."""
        pcm = soxr.resample(samples, rate_hz, RECOGNISER_RATE_HZ)
        pcm = np.pad(pcm * (0.1 / max(float(np.sqrt(np.mean(pcm**2))), 1e-6)), RECOGNISER_RATE_HZ // 4)
        # The recogniser learnt from recordings: digital silence alone cost it every tenth word of plain espeak-ng.
        pcm += ROOM_NOISE * np.random.default_rng(0).standard_normal(len(pcm))
        data = (np.clip(pcm, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""

    def word_errors(self, spoken: str, samples: Samples, rate_hz: int) -> WordErrors:
        expected, heard = split_words(spoken), split_words(self.transcribe(samples, rate_hz))
        return WordErrors(edit_distance(expected, heard), len(expected))

    def embed_speaker(self, samples: Samples, rate_hz: int) -> NDArray[np.float32]:
        """Unit vector (256,) of who speaks; silence is cut out and the level fixed first."""
        wav = soxr.resample(samples, rate_hz, RECOGNISER_RATE_HZ).astype(np.float32)
        return np.asarray(self._encoder.embed_utterance(preprocess_wav(wav)))


def harvest_pitch_hz(samples: Samples, rate_hz: int) -> float:
    """Median F0 over voiced frames by Harvest, the estimator that enrols: checks what was done with its answer."""
    hertz, _ = pyworld.harvest(np.ascontiguousarray(samples), rate_hz, f0_floor=60.0, f0_ceil=PITCH_CEILING_HZ)
    return _median_hz(hertz)


def praat_pitch_hz(samples: Samples, rate_hz: int) -> float:
    """Median F0 over voiced frames by autocorrelation (Praat), which the engine does not use."""
    sound = parselmouth.Sound(samples, rate_hz)
    found = sound.to_pitch_ac(time_step=0.005, pitch_floor=PITCH_FLOOR_HZ, pitch_ceiling=PITCH_CEILING_HZ)
    return _median_hz(found.selected_array["frequency"])


def _median_hz(hertz: NDArray[np.float64]) -> float:
    """Octave errors left out; 0 marks unvoiced frames."""
    voiced = hertz[hertz > 0]
    return float(np.median(voiced[np.abs(np.log(voiced / np.median(voiced))) < np.log(1.9)]))


def split_words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def edit_distance(expected: list[str], heard: list[str]) -> int:
    """Fewest words to replace, add or drop."""
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(expected, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != word))
    return row[-1]
