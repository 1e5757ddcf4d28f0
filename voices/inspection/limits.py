"""What an upload may be, and what its inspection may cost. Plain numbers, shared by both sides of the socket."""

from __future__ import annotations

from dataclasses import dataclass

MAX_UPLOAD_BYTES = 25 * 1000 * 1000
MAX_TRAILING_BYTES = 64 * 1000  # room for the tags that players append, not for a second file

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 8
KEPT_SAMPLE_RATE_HZ = 48_000  # higher rates are resampled to this one; lower ones are kept

# Decoding stops here whatever the header says. 25 MB of silence in FLAC would be weeks.
MAX_EXAMINED_SECONDS = 600
MAX_DECODED_SAMPLES = 120_000_000  # of all channels together

MIN_REFERENCE_SECONDS, MAX_REFERENCE_SECONDS = 3.0, 10.0
MIN_SPEECH_SECONDS = 1.5  # inside the chosen window, pauses not counted

# A window of 10 s at 48 kHz is 960 kB; whatever is longer is not an answer of ours.
MAX_ANSWER_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one child may use. `wall_seconds` also bounds how long the caller waits."""

    memory_bytes: int = 1 << 30  # address space
    cpu_seconds: int = 20
    wall_seconds: float = 30.0
