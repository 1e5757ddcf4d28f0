"""What the synthetic speaker sounds like: measurements of espeak-ng reading fixed sentences, kept per process.

The sentences are this project's own. They are everyday talk, chosen so that most sounds of the language occur.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from scipy import signal

from synthesis.engines.audio import resample, rms
from synthesis.engines.parametric.espeak import EspeakPool
from synthesis.engines.parametric.front_end import plan_speech
from synthesis.engines.parametric.languages import LANGUAGES, Language
from synthesis.engines.parametric.spectra import aperiodicity_logits, find_active, log_mel
from synthesis.engines.parametric.world import (
    F64,
    FRAME_MS,
    SAMPLE_RATE_HZ,
    SILENCE_NOISE,
    Mask,
    analyse_clean,
    track_pitch,
)

# The espeak-ng variant behind every voice. Of the variants tried it lost the fewest words to a recogniser before
# conversion and came closest to the references after it, for men's voices too.
ESPEAK_VARIANT = "+f5"
WORDS_PER_MINUTE = 165

FALLBACK_LANGUAGE = "en"
BANK_TEXTS: Mapping[str, str] = {
    "en": "Why don't you measure the big blue jar before we fetch more oil? Nobody thought the young vet would choose "
    "such a rough path. Each Thursday my father shows us how good bread is baked, then we argue about the cheese. "
    "A yellow fish was hiding among smooth stones near here.",
    "zh": "我弟弟昨天下午在河边捡到一把旧雨伞。你知不知道这辆火车几点出发？春天的风很轻，窗外有许多小鸟在唱歌。"
    "请把热水、糖和茶杯都放在桌子上，二哥马上就回来。",
    "yue": "我細佬琴日喺街市買咗三斤橙。你知唔知架巴士幾點開呀？出面落緊大雨，記得帶遮同埋著多件衫。"
    "阿婆話呢間舖頭嘅雲吞麵最好食，我哋一陣過去試吓。",
    "ja": "弟は昨日、駅前の本屋で古い地図を見つけました。明日の朝は何時ごろ出発しますか。庭の桜がようやく咲いて、"
    "風に揺れています。熱いお茶とパンを、窓のそばの机に置いてください。",
    "ko": "제 동생은 어제 역 앞 서점에서 오래된 지도를 찾았어요. 내일 아침 몇 시쯤 출발할까요? 창밖에는 눈이 펑펑 "
    "내리고 강아지가 뛰어놀고 있습니다. 따뜻한 차와 빵을 책상 위에 놓아 주세요.",
    "fr": "Mon frère a trouvé hier une vieille carte près de la gare. À quelle heure partez-vous demain matin, "
    "vendredi ou jeudi ? Les oiseaux chantent sous la pluie fine, et un chien gris dort au soleil. "
    "Posez le thé chaud et huit brioches sur le banc, s'il vous plaît.",
    "de": "Mein Bruder fand gestern am Bahnhof eine zerknitterte Landkarte. Wann möchtet ihr morgen früh losfahren? "
    "Draußen pfeift der Wind, und zwei junge Vögel hüpfen über das feuchte Gras. Stell bitte heißen Tee, Käse und "
    "fünf Äpfel auf die Bank neben der Küche.",
    "es": "Mi hermano encontró ayer un mapa viejo junto a la estación. ¿A qué hora saldrán ustedes mañana, jueves o "
    "viernes? La lluvia golpea el techo y un perro gris duerme cerca del fuego. Ponga el té caliente, queso y "
    "cinco manzanas en el banco de la cocina.",
}


Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True)
class SourcePitch:
    """Natural log of F0 in hertz over voiced speech."""

    median: float
    spread: float  # standard deviation


@dataclass(frozen=True, slots=True)
class SourceSpeaker:
    """T frames of active speech, K FFT bins."""

    pitch: SourcePitch
    voiced_envelopes: F64  # (T, K)
    unvoiced_envelopes: F64  # (T', K)
    aperiodicity_mean: F64  # (6,) logits
    aperiodicity_spread: F64  # (6,)
    syllables_per_second: float
    active_rms: float


class SourceBank:
    """Measures each language once, when it is first needed. Safe for threads."""

    def __init__(self, espeak: EspeakPool) -> None:
        self._espeak = espeak
        self._pitch = _OncePerLanguage(self._measure_pitch)
        self._speakers = _OncePerLanguage(self._measure_speaker)

    def pitch(self, language: Language) -> SourcePitch:
        """Cheap: pitch alone."""
        return self._pitch.get(_bank_code(language))

    def speaker(self, language: Language) -> SourceSpeaker:
        return self._speakers.get(_bank_code(language))

    def _measure_pitch(self, code: str) -> SourcePitch:
        f0 = track_pitch(self._read_aloud(code))
        return _pitch_of(f0[f0 > 0])

    def _measure_speaker(self, code: str) -> SourceSpeaker:
        samples = self._read_aloud(code)
        analysis = analyse_clean(samples)
        active = find_active(log_mel(analysis.envelope))
        voiced, unvoiced = analysis.is_voiced & active, ~analysis.is_voiced & active
        logits = aperiodicity_logits(analysis.aperiodicity[voiced])
        return SourceSpeaker(
            pitch=self._pitch.get(code),
            voiced_envelopes=analysis.envelope[voiced],
            unvoiced_envelopes=analysis.envelope[unvoiced],
            aperiodicity_mean=logits.mean(axis=0),
            aperiodicity_spread=logits.std(axis=0),
            syllables_per_second=count_syllables(samples) / (active.sum() * FRAME_MS / 1000.0),
            active_rms=rms(samples[samples_of_frames(active, len(samples))]),
        )

    def _read_aloud(self, code: str) -> F64:
        """(N,) at 24 kHz."""
        runs = plan_speech(BANK_TEXTS[code], LANGUAGES[code])
        spoken = [
            self._espeak.speak(run.text, run.language.espeak_voice + ESPEAK_VARIANT, WORDS_PER_MINUTE) for run in runs
        ]
        samples = np.concatenate([speech.samples for speech in spoken]) / 32768.0
        return without_digital_silence(resample(samples, spoken[0].sample_rate_hz, SAMPLE_RATE_HZ))


class _OncePerLanguage(Generic[Measured]):
    """A cache in which two threads never compute the same entry, and different entries do not wait for each other."""

    def __init__(self, measure: Callable[[str], Measured]) -> None:
        self._measure = measure
        self._values: dict[str, Measured] = {}
        self._locks = {code: threading.Lock() for code in BANK_TEXTS}

    def get(self, code: str) -> Measured:
        if code not in self._values:
            with self._locks[code]:
                if code not in self._values:
                    self._values[code] = self._measure(code)
        return self._values[code]


def without_digital_silence(samples: F64) -> F64:
    """The samples with noise at -100 dB added, always the same noise. (N,) to (N,)."""
    return np.asarray(samples + SILENCE_NOISE * np.random.default_rng(0).standard_normal(len(samples)))


def samples_of_frames(frames: Mask, count: int) -> Mask:
    """(T,) per frame to (count,) per sample."""
    mask = np.zeros(count, dtype=np.bool_)
    spread = np.repeat(frames, round(SAMPLE_RATE_HZ * FRAME_MS / 1000.0))[:count]
    mask[: len(spread)] = spread
    return mask


def count_syllables(samples: F64) -> int:
    """Peaks of the 300-2500 Hz energy, smoothed at 7 Hz. samples: (N,) at 24 kHz."""
    block_hz = 200
    band = signal.butter(3, [300, 2500], "band", fs=SAMPLE_RATE_HZ, output="sos")
    smooth = signal.butter(2, 7, fs=block_hz, output="sos")
    power = signal.sosfilt(band, samples) ** 2
    blocks = np.add.reduceat(power, np.arange(0, len(samples), SAMPLE_RATE_HZ // block_hz))
    level = np.sqrt(np.maximum(signal.sosfiltfilt(smooth, blocks), 0.0))
    decibels = 20.0 * np.log10(level / (level.max() + 1e-12) + 1e-4)
    peaks, _ = signal.find_peaks(decibels, prominence=2.5, height=-28, distance=16)
    return len(peaks)


def _bank_code(language: Language) -> str:
    """The language whose sentences stand for `language`: its own, its family's (`en-gb`: `en`), or English."""
    family = language.code.split("-")[0]
    for code in (language.code, family):
        if code in BANK_TEXTS:
            return code
    return FALLBACK_LANGUAGE


def _pitch_of(f0_hz: F64) -> SourcePitch:
    logs = np.log(f0_hz)
    return SourcePitch(median=float(np.median(logs)), spread=float(logs.std()))
