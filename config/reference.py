"""The clip that ships with Cantoria, our own making and free to use."""

from pathlib import Path
from typing import Final

REFERENCE_CLIP: Final = (
    Path(__file__).resolve().parents[1] / "synthesis" / "engines" / "parametric" / "demo_reference.wav"
)
