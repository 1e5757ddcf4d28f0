"""Join pieces of speech into one line of sound: edges trimmed, exact pauses, cross-fades, a ceiling.

All of it works on a stream and depends on the samples alone, not on how they were cut into chunks.
"""

from __future__ import annotations

import numpy as np

from synthesis.engines.base import Samples

_SILENCE_LEVEL = 10 ** (-50 / 20)  # of full scale; below it an edge counts as silence
_MARGIN_BEFORE_MS = 10  # kept of that silence, so that no soft consonant is cut
_MARGIN_AFTER_MS = 25
_FADE_MS = 5

_KNEE = 10 ** (-3 / 20)
_CEILING = 10 ** (-1 / 20)  # 1 dB of room for what lossy codecs add, as EBU R 128 asks

_EMPTY: Samples = np.zeros(0, dtype=np.float32)


def limit_peaks(samples: Samples) -> Samples:
    """Bend what is above -3 dBFS under a ceiling of -1 dBFS; leave everything below untouched, bit for bit.

    Without memory, so a segment sounds the same alone and in any company. The voice's level is fixed at preparation and
    rarely gets here; a limiter with look-ahead would move the level of whole syllables.
    """
    magnitude = np.abs(samples)
    room = _CEILING - _KNEE
    bent = np.copysign(_KNEE + room * np.tanh((magnitude - _KNEE) / room), samples)
    return np.where(magnitude > _KNEE, bent, samples).astype(np.float32)


class EdgeTrimmer:
    """Cuts the near-silence at both ends of one utterance down to a fixed margin."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._before = _samples(_MARGIN_BEFORE_MS, sample_rate_hz)
        self._after = _samples(_MARGIN_AFTER_MS, sample_rate_hz)
        self._held = _EMPTY
        self.trimmed_before = 0  # samples cut at the front so far
        self.has_sound = False

    def push(self, samples: Samples) -> Samples:
        """What is certainly kept by now: everything up to the last loud sample."""
        held = np.concatenate((self._held, samples))
        loud = np.flatnonzero(np.abs(held) > _SILENCE_LEVEL)
        if not self.has_sound:
            cut = max(0, (int(loud[0]) if loud.size else len(held)) - self._before)
            self.trimmed_before += cut
            held, loud = held[cut:], loud - cut
        if loud.size == 0:
            self._held = held
            return _EMPTY
        self.has_sound = True
        stop = int(loud[-1]) + 1
        self._held = held[stop:]
        return held[:stop]

    def finish(self) -> Samples:
        """The margin after the last loud sample; nothing if none was loud."""
        return self._held[: self._after] if self.has_sound else _EMPTY


class Joiner:
    """One line of sound out of pieces: `push` within a piece, `pause` or `cross_fade` after one.

    Each piece fades in and out over a few milliseconds, so its end is held back until it is known what follows.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        phase = (np.arange(_samples(_FADE_MS, sample_rate_hz)) + 0.5) / _samples(_FADE_MS, sample_rate_hz) * (np.pi / 2)
        self._rise: Samples = np.sin(phase).astype(np.float32)  # equal power: two utterances are not in phase
        self._fall: Samples = np.cos(phase).astype(np.float32)
        self._held = _EMPTY
        self._crossing = _EMPTY  # the fading end of the piece before
        self._has_begun = False
        self._emitted = 0

    @property
    def position(self) -> int:
        """Samples from the start of the line to the end of what was pushed, or to where the next piece will begin."""
        return self._emitted + len(self._held)

    def push(self, samples: Samples) -> Samples:
        fade = len(self._fall)
        self._held = np.concatenate((self._held, samples))
        if not self._has_begun:
            if len(self._held) < 2 * fade:
                return _EMPTY
            self._begin()
        return self._emit(max(0, len(self._held) - fade))

    def pause(self, samples: int) -> Samples:
        """End the piece, and add exactly `samples` of silence after it."""
        self._end()
        self._held = np.concatenate((self._held, np.zeros(samples, dtype=np.float32)))
        self._has_begun = False
        return self._emit(len(self._held))

    def cross_fade(self) -> Samples:
        """End the piece and let the next one begin under its last milliseconds."""
        self._end()
        fade = min(len(self._fall), len(self._held))
        body = self._emit(len(self._held) - fade)
        self._crossing, self._held = self._held, _EMPTY
        self._has_begun = False
        return body

    def _begin(self) -> None:
        length = min(len(self._rise), len(self._held))
        head = self._held[:length] * self._rise[:length]
        self._held = np.concatenate((head, self._held[length:]))
        if len(self._held) < len(self._crossing):
            self._held = np.pad(self._held, (0, len(self._crossing) - len(self._held)))
        self._held[: len(self._crossing)] += self._crossing
        self._crossing = _EMPTY
        self._has_begun = True

    def _end(self) -> None:
        if not self._has_begun:
            self._begin()
        length = min(len(self._fall), len(self._held))
        if length:
            tail = self._held[-length:] * self._fall[-length:]
            self._held = np.concatenate((self._held[:-length], tail))

    def _emit(self, count: int) -> Samples:
        ready, self._held = self._held[:count], self._held[count:]
        self._emitted += count
        return ready


def _samples(milliseconds: float, sample_rate_hz: int) -> int:
    return round(milliseconds * sample_rate_hz / 1000)
