"""Errors of the engines: plain Python, no Django. Each class has a stable `code`."""

from __future__ import annotations

from typing import Any, ClassVar


class EngineError(Exception):
    """Root of everything an engine raises on purpose.

    `retryable` says whether the same call may succeed later (a crashed helper process) or never will (bad text).
    """

    code: ClassVar[str] = "engine_failed"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class UnsupportedLanguageError(EngineError):
    code = "unsupported_language"


class UnspeakableTextError(EngineError):
    """The text holds nothing that this engine can say (only punctuation, symbols or emoji)."""

    code = "unspeakable_text"


class UnusableReferenceError(EngineError):
    """The reference audio is silent, unvoiced or too short to learn a voice from."""

    code = "unusable_reference"


class VoicePromptMismatchError(EngineError):
    """The prepared voice was made by another engine or version: prepare it again."""

    code = "voice_prompt_mismatch"


class EngineCrashedError(EngineError):
    """A helper process of the engine died or ran out of time; the call may be repeated."""

    code = "engine_crashed"
    retryable = True
