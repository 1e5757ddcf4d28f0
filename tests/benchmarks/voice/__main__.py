"""The table of the parametric engine: pitch, likeness and words, for every reference and for both groups.

    python -m tests.benchmarks.voice [--sentences 10]

Prints the table and the verdicts, writes both to `var/bench/voice.json`, and exits 1 when a verdict fails.

Pitch is judged by Harvest, which also enrols: this checks the mapping. Praat, which the engine does not use, stands
beside it without a verdict, because on lists of letters the two differ about the recording itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import soundfile
from numpy.typing import NDArray

from synthesis.engines.audio import resample
from synthesis.engines.base import ReferenceAudio, SynthesisOptions, VoicePrompt
from synthesis.engines.parametric.conversion import DEFAULT_SETTINGS, map_pitch
from synthesis.engines.parametric.engine import ParametricEngine
from synthesis.engines.parametric.espeak import CALL_SECONDS, EspeakPool
from synthesis.engines.parametric.languages import LANGUAGES
from synthesis.engines.parametric.source_bank import (
    ESPEAK_VARIANT,
    WORDS_PER_MINUTE,
    SourceBank,
    without_digital_silence,
)
from synthesis.engines.parametric.voice_model import VoiceModel
from synthesis.engines.parametric.world import SAMPLE_RATE_HZ, Analysis, analyse_clean, resynthesize
from tests.benchmarks.voice.judge import Judge, WordErrors, harvest_pitch_hz, praat_pitch_hz
from tests.benchmarks.voice.references import BENCH, Reference, prepare_references

Condition = Literal["raw", "pitch", "full"]  # espeak-ng as it is; its pitch mapped; the engine
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

HIGH_VOICE_HZ = 230.0
FEWEST_WORDS = 500  # per group
PITCH_TOLERANCE = 0.03
LIKENESS_GAIN, LIKENESS_MEAN, LIKENESS_GAIN_HIGH = 0.14, 0.72, 0.08
WORDS_LOST, WORDS_LOST_HIGH = 0.06, 0.10
BOOTSTRAP_DRAWS = 2000

SENTENCES = tuple((Path(__file__).parent / "sentences.txt").read_text().splitlines())
LANGUAGE = LANGUAGES["en"]

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One reference. `errors` and `likeness` by condition; the errors of one condition are in order of `sentences`."""

    name: str
    speech: str
    f0_hz: float
    f0_change: float  # converted against the reference, 0.01 is 1 %; by Harvest
    praat_f0_change: float
    likeness: Mapping[Condition, float]  # cosine to the clip that was not enrolled
    errors: Mapping[Condition, Sequence[WordErrors]]

    @property
    def is_high(self) -> bool:
        return self.f0_hz >= HIGH_VOICE_HZ


@dataclass(frozen=True, slots=True)
class Verdict:
    claim: str
    found: str
    holds: bool


class Bench:
    """The engine through its public face, and the same sentences without it."""

    def __init__(self) -> None:
        self.judge = Judge()
        self._engine = ParametricEngine(espeak_workers=1)
        self._espeak = EspeakPool(1, CALL_SECONDS)
        self._bank = SourceBank(self._espeak)

    def close(self) -> None:
        self._engine.close()
        self._espeak.close()

    def measure(self, reference: Reference, sentences: Sequence[str]) -> Row:
        enrolled, enrolled_rate_hz = soundfile.read(reference.enrol, dtype="float32")
        compared, compared_rate_hz = soundfile.read(reference.compare)
        voice = self._engine.prepare_voice([ReferenceAudio(enrolled, enrolled_rate_hz)])
        wanted = self.judge.embed_speaker(compared, compared_rate_hz)
        likeness: dict[Condition, float] = {}
        errors: dict[Condition, list[WordErrors]] = {}
        for condition in CONDITIONS:
            spoken = [self._speak(sentence, voice, condition) for sentence in sentences]
            errors[condition] = [
                self.judge.word_errors(sentence, samples, SAMPLE_RATE_HZ)
                for sentence, samples in zip(sentences, spoken, strict=True)
            ]
            everything = np.concatenate(spoken)
            likeness[condition] = float((self.judge.embed_speaker(everything, SAMPLE_RATE_HZ) * wanted).sum())
        clip = enrolled.astype(np.float64)
        f0_hz = harvest_pitch_hz(clip, enrolled_rate_hz)
        return Row(
            name=reference.speaker.name,
            speech=reference.speaker.speech,
            f0_hz=f0_hz,
            f0_change=harvest_pitch_hz(everything, SAMPLE_RATE_HZ) / f0_hz - 1.0,
            praat_f0_change=praat_pitch_hz(everything, SAMPLE_RATE_HZ) / praat_pitch_hz(clip, enrolled_rate_hz) - 1.0,
            likeness=likeness,
            errors=errors,
        )

    def _speak(self, text: str, voice: VoicePrompt, condition: Condition) -> Samples:
        """(N,) at SAMPLE_RATE_HZ, at the same rate of speech in every condition."""
        if condition == "full":
            chunks = self._engine.synthesize(text, language=LANGUAGE.code, voice=voice, options=SynthesisOptions())
            return np.concatenate([chunk.samples for chunk in chunks]).astype(np.float64)
        model = VoiceModel.from_arrays(voice.arrays)
        speech = self._espeak.speak(
            text, LANGUAGE.espeak_voice + ESPEAK_VARIANT, round(WORDS_PER_MINUTE * model.rate_ratio)
        )
        samples = resample(speech.samples / 32768.0, speech.sample_rate_hz, SAMPLE_RATE_HZ)
        if condition == "raw":
            return samples
        source = analyse_clean(without_digital_silence(samples))
        f0_hz = map_pitch(source.f0_hz, model, self._bank.pitch(LANGUAGE), is_tonal=False, settings=DEFAULT_SETTINGS)
        return resynthesize(Analysis(f0_hz, source.envelope, source.aperiodicity))


def choose_sentences(index: int, count: int) -> list[str]:
    """Another handful for every reference, so that together they use all sentences."""
    return [SENTENCES[(index * 7 + k * (len(SENTENCES) // count)) % len(SENTENCES)] for k in range(count)]


def error_rate(rows: Sequence[Row], condition: Condition) -> float:
    counted = [each for row in rows for each in row.errors[condition]]
    return sum(each.errors for each in counted) / sum(each.words for each in counted)


def interval(rows: Sequence[Row], condition: Condition, minus: Condition | None = None) -> tuple[float, float]:
    """95 % interval of the word error rate, or of its difference to another condition's on the same sentences.

    Bootstrap: speakers drawn with replacement, then sentences within each.
    """
    cells = np.array(
        [
            [(e.errors - (row.errors[minus][k].errors if minus else 0), e.words) for k, e in enumerate(errors)]
            for row in rows
            for errors in [row.errors[condition]]
        ]
    )  # (speakers, sentences, 2)
    random = np.random.default_rng(0)
    speakers, sentences, _ = cells.shape
    rates = np.empty(BOOTSTRAP_DRAWS)
    for draw in range(BOOTSTRAP_DRAWS):
        who = random.integers(speakers, size=(speakers, 1))
        drawn = cells[who, random.integers(sentences, size=(speakers, sentences))].sum(axis=(0, 1))
        rates[draw] = drawn[0] / drawn[1]
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def likeness_gain(row: Row) -> float:
    return row.likeness["full"] - row.likeness["raw"]


def reach_verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What the engine promises, each with the number found."""
    low, high = [row for row in rows if not row.is_high], [row for row in rows if row.is_high]
    off_pitch = max(rows, key=lambda row: abs(row.f0_change))
    least = min(rows, key=likeness_gain)
    mean_gain = float(np.mean([likeness_gain(row) for row in rows]))
    mean = float(np.mean([row.likeness["full"] for row in rows]))
    high_gain = float(np.mean([likeness_gain(row) for row in high]))
    words = [sum(e.words for row in group for e in row.errors["full"]) for group in (low, high)]
    lost_low = error_rate(low, "full") - error_rate(low, "raw")
    lost_high = error_rate(high, "full") - error_rate(high, "pitch")
    low_interval, high_interval = interval(low, "full", "raw"), interval(high, "full", "pitch")
    return [
        Verdict(f"at least {FEWEST_WORDS} words in each group", f"{words[0]}, {words[1]}", min(words) >= FEWEST_WORDS),
        Verdict(
            f"median F0 within {PITCH_TOLERANCE:.0%} for each",
            f"worst {off_pitch.f0_change:+.1%} ({off_pitch.name})",
            abs(off_pitch.f0_change) <= PITCH_TOLERANCE,
        ),
        Verdict(
            "likeness never below the unconverted",
            f"least gain {likeness_gain(least):+.3f} ({least.name})",
            likeness_gain(least) >= 0.0,
        ),
        Verdict(f"mean likeness gain at least {LIKENESS_GAIN}", f"{mean_gain:+.3f}", mean_gain >= LIKENESS_GAIN),
        Verdict(f"mean likeness at least {LIKENESS_MEAN}", f"{mean:.3f}", mean >= LIKENESS_MEAN),
        Verdict(
            f"under {HIGH_VOICE_HZ:.0f} Hz: word errors at most {WORDS_LOST} above the unconverted",
            f"{lost_low:+.3f} [{low_interval[0]:+.3f}, {low_interval[1]:+.3f}]",
            lost_low <= WORDS_LOST,
        ),
        Verdict(
            f"from {HIGH_VOICE_HZ:.0f} Hz: word errors at most {WORDS_LOST_HIGH} above pitch mapping alone",
            f"{lost_high:+.3f} [{high_interval[0]:+.3f}, {high_interval[1]:+.3f}]",
            lost_high <= WORDS_LOST_HIGH,
        ),
        Verdict(
            f"from {HIGH_VOICE_HZ:.0f} Hz: mean likeness gain at least {LIKENESS_GAIN_HIGH}",
            f"{high_gain:+.3f}",
            high_gain >= LIKENESS_GAIN_HIGH,
        ),
    ]


def format_row(row: Row) -> str:
    cells = [f"{row.likeness[c]:.3f}" for c in CONDITIONS] + [f"{error_rate([row], c):.2f}" for c in CONDITIONS]
    pitch = f"{row.f0_hz:.0f} | {row.f0_change:+.1%} | {row.praat_f0_change:+.1%}"
    return f"| {row.name} ({row.speech}) | {pitch} | {' | '.join(cells)} |"


def format_group(title: str, rows: Sequence[Row]) -> str:
    cells = [f"{np.mean([row.likeness[c] for row in rows]):.3f}" for c in CONDITIONS]
    for condition in CONDITIONS:
        low, high = interval(rows, condition)
        cells.append(f"{error_rate(rows, condition):.3f} [{low:.2f}, {high:.2f}]")
    return f"| **{title}** | | | | {' | '.join(cells)} |"


def format_table(rows: Sequence[Row]) -> str:
    head = ["reference", "F0 Hz", "F0 error", "by Praat"]
    head += [f"{what} {condition}" for what in ("likeness", "word errors") for condition in CONDITIONS]
    groups = {
        f"under {HIGH_VOICE_HZ:.0f} Hz": [row for row in rows if not row.is_high],
        f"from {HIGH_VOICE_HZ:.0f} Hz": [row for row in rows if row.is_high],
        "all": rows,
    }
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    lines += [format_row(row) for row in sorted(rows, key=lambda row: row.f0_hz)]
    lines += [format_group(title, members) for title, members in groups.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sentences", type=int, default=10, help="sentences per reference (default 10)")
    count = parser.parse_args().sentences
    bench = Bench()
    try:
        rows = []
        for index, reference in enumerate(prepare_references()):
            rows.append(bench.measure(reference, choose_sentences(index, count)))
            print(format_row(rows[-1]), file=sys.stderr, flush=True)
    finally:
        bench.close()
    verdicts = reach_verdicts(rows)
    print(format_table(rows), "\n")
    for verdict in verdicts:
        print(f"{'holds' if verdict.holds else 'FAILS'}: {verdict.claim}: {verdict.found}")
    result = {"rows": [asdict(row) for row in rows], "verdicts": [asdict(verdict) for verdict in verdicts]}
    (BENCH / "voice.json").write_text(json.dumps(result, indent=1))
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
