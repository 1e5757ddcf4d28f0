"""What the engine keeps of a voice: a few arrays, computed once, that every call starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthesis.engines.base import VoicePrompt
from synthesis.engines.errors import VoicePromptMismatchError

_NAMES = ("codes", "phones", "bert", "style")


@dataclass(frozen=True, slots=True)
class Reference:
    """A prepared voice. `codes`, `phones` and `bert` are empty for a clip nobody has transcribed.

    All on the CPU: a voice may be spoken on another device than the one that learned it.
    """

    codes: Tensor  # (P,) int64, the clip's semantic codes
    phones: Tensor  # (S,) int64, of its transcript
    bert: Tensor  # (1024, S) float32, of its transcript; zeros where it is not Chinese
    style: Tensor  # (1, G, 1) float32

    def to_prompt(self, *, engine: str, engine_version: str) -> VoicePrompt:
        arrays = {name: getattr(self, name).numpy() for name in _NAMES}
        return VoicePrompt(engine=engine, engine_version=engine_version, arrays=arrays)

    @classmethod
    def from_prompt(cls, prompt: VoicePrompt) -> Reference:
        """Raises VoicePromptMismatchError when an array is missing."""
        try:
            # A copy: torch must not be handed memory that it may not write to.
            return cls(**{name: torch.from_numpy(np.array(prompt.arrays[name])) for name in _NAMES})
        except KeyError as error:
            raise VoicePromptMismatchError("The prepared voice is incomplete.", missing=str(error)) from error
