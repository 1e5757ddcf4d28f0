"""The prompts a worker keeps in memory: by bytes, and the ones used last."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np

from synthesis.engines.base import VoicePrompt
from synthesis.prompts import PromptKey, PromptMemory

KEY = PromptKey(
    tenant_id=UUID(int=1), voice_id=UUID(int=0), engine="e", engine_version="1", key_epoch=1, audio_digest="d"
)


def key(number: int) -> PromptKey:
    return replace(KEY, voice_id=UUID(int=number))


def prompt(size: int) -> VoicePrompt:
    return VoicePrompt(
        "e", "1", {"a": np.zeros(size // 2, dtype=np.uint8), "b": np.zeros(size - size // 2, dtype=np.uint8)}
    )


def kept(memory: PromptMemory, count: int) -> set[int]:
    return {number for number in range(count) if memory.get(key(number)) is not None}


def test_what_was_unused_longest_goes_when_the_bytes_do_not_fit() -> None:
    memory = PromptMemory(100)
    for number in range(3):
        memory.put(key(number), prompt(40))
        memory.get(key(0))
    assert kept(memory, 3) == {0, 2}
    memory.put(key(3), prompt(95))
    assert kept(memory, 4) == {3}


def test_a_prompt_that_is_put_again_counts_once() -> None:
    memory = PromptMemory(100)
    for _ in range(5):
        memory.put(key(0), prompt(40))
    memory.put(key(1), prompt(40))
    assert kept(memory, 2) == {0, 1}


def test_one_too_large_is_kept_until_the_next_comes() -> None:
    memory = PromptMemory(100)
    memory.put(key(0), prompt(500))
    assert kept(memory, 1) == {0}
    memory.put(key(1), prompt(10))
    assert kept(memory, 2) == {1}


def test_a_dropped_voice_gives_its_bytes_back() -> None:
    memory = PromptMemory(100)
    memory.put(key(0), prompt(80))
    memory.drop_voice(KEY.tenant_id, UUID(int=0))
    memory.put(key(1), prompt(60))
    memory.put(key(2), prompt(40))
    assert kept(memory, 3) == {1, 2}
    memory.clear()
    memory.put(key(3), prompt(100))
    assert kept(memory, 4) == {3}
