"""The score of a reference clip and what to say about it: plain words for somebody who is not a sound engineer."""

from __future__ import annotations

from dataclasses import dataclass

from voices.inspection.limits import MAX_EXAMINED_SECONDS
from voices.inspection.report import Advice


@dataclass(frozen=True, slots=True)
class Findings:
    """What the advice is made from; the fields mean what they mean in QualityReport."""

    is_examined_fully: bool
    original_seconds: float
    used_seconds: float
    speech_seconds: float
    voiced_share: float
    clipping_share: float
    active_level_dbfs: float
    snr_db: float
    bandwidth_hz: int
    range_db: float  # between loud and quiet moments


def judge(found: Findings) -> tuple[int, tuple[Advice, ...]]:
    """Score 0 to 100 and the advice, what costs most first."""
    costs: list[tuple[float, Advice]] = []

    def add(cost: float, code: str, message: str) -> None:
        costs.append((cost, Advice(code=code, message=message)))

    if found.clipping_share >= 0.0002:
        add(
            min(8 + 1500 * found.clipping_share, 40),
            "clipped",
            f"The recording is too loud: {_percent(found.clipping_share)} of it is cut off at the top (clipping). "
            "Lower the recording level or move a bit away from the microphone, and record again.",
        )
    if found.snr_db < 30:
        add(
            min(1.8 * (30 - found.snr_db), 45),
            "noisy",
            f"The voice is only {found.snr_db:.0f} dB above the background noise; 30 dB or more is good. Record in a "
            "quiet room, close windows, switch off fans, and come closer to the microphone.",
        )
    if found.active_level_dbfs < -35:
        add(
            min((-35 - found.active_level_dbfs) * 1.5, 25),
            "too_quiet",
            f"The voice is very quiet ({found.active_level_dbfs:.0f} dBFS). Raise the recording level or come closer.",
        )
    if found.bandwidth_hz < 7_000:
        add(
            min((7_000 - found.bandwidth_hz) / 200, 20),
            "dull",
            f"The sound ends at about {found.bandwidth_hz / 1000:.1f} kHz, like a telephone, so the voice will sound "
            "dull. Record with 24 kHz or more and avoid phone calls and strong compression.",
        )
    if found.speech_seconds < 5:
        add(
            min((5 - found.speech_seconds) * 6, 20),
            "little_speech",
            f"There are {found.speech_seconds:.1f} seconds of speech; 6 to 10 seconds copy a voice better.",
        )
    if found.range_db < 10:
        add(
            30,
            "unlike_speech",
            "The level hardly changes, as with a steady tone, noise or music. A voice alone, with its pauses, works "
            "best.",
        )
    elif found.voiced_share < 0.25:
        add(
            15,
            "little_voice",
            "Little of the recording has a pitch: it may be whispered or mostly noise. Speak with a normal voice.",
        )
    score = max(round(100 - sum(cost for cost, _ in costs)), 0)
    advice = [item for _, item in sorted(costs, key=lambda pair: -pair[0])]
    if not found.is_examined_fully:
        advice.append(Advice("partly_examined", f"Only the first {_length(found.original_seconds)} were looked at."))
    elif found.original_seconds - found.used_seconds > 2:
        advice.append(
            Advice(
                "window_chosen",
                f"The best {found.used_seconds:.1f} seconds of {_length(found.original_seconds)} were chosen. A "
                "transcript must hold only the words within them.",
            )
        )
    return score, tuple(advice)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _length(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= min(120, MAX_EXAMINED_SECONDS) else f"{seconds:.0f} seconds"
