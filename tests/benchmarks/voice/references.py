"""Fetch freely licensed recordings and cut two clips of each speaker: one to enrol, one to compare with.

The recordings come from Debian packages, through the machine's own `apt-get download`, and stay under `var/`: none of
them is part of this repository, and what is made from them here must not be published either (see each licence).

    python -m tests.benchmarks.voice.references
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

BENCH = Path(__file__).parents[3] / "var" / "bench"
REFERENCES = BENCH / "references"
SAMPLE_RATE_HZ = 24_000
ENROL_SECONDS = 10.0
COMPARE_SECONDS = 20.0  # longer than the enrolled clip: it only has to say what the speaker sounds like
PAUSE_SECONDS = 0.15

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Speaker:
    """One speaker of a Debian package: the files that hold the voice, and under which licence."""

    name: str
    package: str
    files: tuple[str, ...]  # globs below /usr/share; sorted by name, used in that order
    language: str
    licence: str
    speech: str = "sentences"
    shortest_file_seconds: float = 1.2  # leaves out noises and interjections


@dataclass(frozen=True, slots=True)
class Reference:
    """A speaker's two clips, mono at SAMPLE_RATE_HZ. They share no recording."""

    speaker: Speaker
    enrol: Path
    compare: Path


SPEAKERS = (
    Speaker("en-librivox", "pocketsphinx-testdata", ("pocketsphinx/test/data/librivox/*.wav",), "en", "BSD-2-Clause"),
    Speaker("cs-actor-v", "fillets-ng-data-cs", ("games/fillets-ng/sound/*/cs/*-v-*.ogg",), "cs", "GPL-2"),
    Speaker("nl-actor-v", "fillets-ng-data-nl", ("games/fillets-ng/sound/*/nl/*-v-*.ogg",), "nl", "GPL-2"),
    Speaker(
        "it-menardi",
        "asterisk-prompt-it-menardi-wav",
        ("asterisk/sounds/it_IT_f_Menardi/vm-*.wav",),
        "it",
        "CC-BY-SA-3.0-IT",
    ),
    Speaker(
        "it-carlo", "asterisk-core-sounds-it-g722", ("asterisk/sounds/it_IT_m_Carlo/vm-*.g722",), "it", "CC-BY-3.0"
    ),
    Speaker(
        "en-allison",
        "asterisk-core-sounds-en-g722",
        ("asterisk/sounds/en_US_f_Allison/vm-*.g722",),
        "en",
        "CC-BY-SA-3.0",
    ),
    Speaker(
        "fr-june", "asterisk-core-sounds-fr-g722", ("asterisk/sounds/fr_CA_f_June/vm-*.g722",), "fr", "CC-BY-SA-3.0"
    ),
    Speaker(
        "ru-ivrvoice",
        "asterisk-core-sounds-ru-g722",
        ("asterisk/sounds/ru_RU_f_IvrvoiceRU/vm-*.g722",),
        "ru",
        "CC-BY-3.0",
    ),
    Speaker("nl-actor-m", "fillets-ng-data-nl", ("games/fillets-ng/sound/*/nl/*-m-*.ogg",), "nl", "GPL-2"),
    Speaker("nb-letters", "klettres-data", ("klettres/nb/alpha/*.ogg",), "nb", "GPL-2+", "letters", 0.3),
    Speaker("gl-words", "ktuberling-data", ("ktuberling/sounds/gl/*.ogg",), "gl", "GPL-2+", "words", 0.3),
    Speaker("cs-actor-m", "fillets-ng-data-cs", ("games/fillets-ng/sound/*/cs/*-m-*.ogg",), "cs", "GPL-2"),
    Speaker("ar-letters", "klettres-data", ("klettres/ar/alpha/*.ogg",), "ar", "GPL-2+", "letters", 0.3),
    Speaker(
        "pt-letters",
        "klettres-data",
        ("klettres/pt_BR/alpha/*.ogg", "klettres/pt_BR/syllab/*.ogg"),
        "pt",
        "GPL-2+",
        "letters",
        0.3,
    ),
    Speaker(
        "tn-letters",
        "klettres-data",
        ("klettres/tn/alpha/*.ogg", "klettres/tn/syllab/*.ogg"),
        "tn",
        "GPL-2+",
        "letters",
        0.3,
    ),
)


def unpack(package: str) -> Path:
    """Folder with the package's files; downloads it once. Raises CalledProcessError where apt cannot."""
    folder = REFERENCES / "packages" / package
    if not folder.exists():
        downloads = REFERENCES / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", package], cwd=downloads, check=True, capture_output=True)
        (archive,) = downloads.glob(f"{package}_*.deb")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_suffix(".partial")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(partial)], check=True)
        partial.rename(folder)
        archive.unlink()
    return folder


def read_recording(path: Path) -> tuple[Samples, int]:
    """(mono samples, rate in Hz). A `.g722` file has no header: 16 kHz by definition."""
    if path.suffix != ".g722":
        samples, rate_hz = soundfile.read(path, dtype="float64", always_2d=True)
        return samples.mean(axis=1), rate_hz
    decoder = av.CodecContext.create("adpcm_g722", "r")
    decoder.sample_rate = 16_000
    decoder.layout = "mono"
    frames = [*decoder.decode(av.Packet(path.read_bytes())), *decoder.decode(None)]
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]) / 32768.0, 16_000


def trim_silence(samples: Samples, rate_hz: int) -> Samples:
    """Cut what lies more than 40 dB under the loudest 20 ms at both ends."""
    block = rate_hz // 50
    count = len(samples) // block
    if count == 0:
        return samples[:0]
    power = (samples[: count * block].reshape(count, block) ** 2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 1e-4)
    return samples[loud[0] * block : (loud[-1] + 1) * block]


def join_clips(speaker: Speaker, paths: Sequence[Path]) -> tuple[Samples, Samples]:
    """Put recordings one after the other: first into the enrolled clip until it is full, then into the other."""
    pause = np.zeros(int(PAUSE_SECONDS * SAMPLE_RATE_HZ))
    clips: list[list[Samples]] = [[], []]
    limits = [int(ENROL_SECONDS * SAMPLE_RATE_HZ), int(COMPARE_SECONDS * SAMPLE_RATE_HZ)]
    lengths = [0, 0]
    now = 0
    for path in paths:
        samples, rate_hz = read_recording(path)
        spoken = trim_silence(samples, rate_hz)
        if len(spoken) < speaker.shortest_file_seconds * rate_hz:
            continue
        piece = np.concatenate([soxr.resample(spoken, rate_hz, SAMPLE_RATE_HZ), pause])
        if lengths[now] + len(piece) > limits[now] and lengths[now] > 0.5 * limits[now]:
            now += 1
            if now == len(clips):
                break
        clips[now].append(piece)
        lengths[now] += len(piece)
    enrol, compare = (np.concatenate(pieces)[:limit] for pieces, limit in zip(clips, limits, strict=True))
    return enrol, compare


def prepare_reference(speaker: Speaker) -> Reference:
    """Make both clips of a speaker, once, as WAV files under `var/bench/references/clips`."""
    clips = REFERENCES / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    reference = Reference(speaker, clips / f"{speaker.name}.enrol.wav", clips / f"{speaker.name}.compare.wav")
    if not reference.compare.exists():
        share = unpack(speaker.package) / "usr" / "share"
        paths = [path for pattern in speaker.files for path in sorted(share.glob(pattern))]
        enrol, compare = join_clips(speaker, paths)
        for target, samples in ((reference.enrol, enrol), (reference.compare, compare)):  # the last one marks it done
            soundfile.write(target, 0.5 * samples / np.abs(samples).max(), SAMPLE_RATE_HZ, subtype="PCM_16")
    return reference


def prepare_references() -> list[Reference]:
    return [prepare_reference(speaker) for speaker in SPEAKERS]


if __name__ == "__main__":
    for ready in prepare_references():
        enrol_s, compare_s = (soundfile.info(clip).duration for clip in (ready.enrol, ready.compare))
        source = ready.speaker
        print(f"{source.name:12} {enrol_s:5.1f} s + {compare_s:5.1f} s of {source.speech:9} {source.licence:16} "
              f"Debian package {source.package}: {', '.join(source.files)}")  # fmt: skip
