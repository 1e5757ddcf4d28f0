# SPDX-License-Identifier: GPL-3.0-or-later
"""Speaks with espeak-ng: requests on standard input, samples and events on standard output.

A program of its own under the GPL (see COPYING beside it), started by file name; it imports only the standard library
and the loader of the espeak-ng library, and nothing imports it.

A frame is a 4-byte big-endian length and that many bytes. At the start the parent writes one frame of JSON,
`{"ready": true, "sample_rate_hz": R}`. Then, for every request frame (JSON: `text`, `voice`, `words_per_minute`,
`timeout_seconds`), come two frames: JSON (`{"error": null, "events": [...]}` or `{"error": code}`) and the samples,
16-bit little-endian mono. An event is `[kind, text_position, sample, name]`: kind `word` or `phoneme`, the position in
code points of the request's text, and the phoneme's name (empty for a pause).

espeak-ng carries state from one utterance into the next, so the second one would sound different from the first.
Therefore the parent is initialised and then never speaks, never even reads a request: it waits until something is
there to read, and forks. The pristine child reads one request, answers it and ends. A child that dies ends the
parent too, because nobody knows how much of the pipe it had used; the client starts another.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import threading
from typing import Any

import espeakng_loader

END_OF_INPUT_STATUS = 3  # the child's way to say that the client is gone

# From espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS, INITIALIZE_PHONEME_IPA, INITIALIZE_DONT_EXIT = 1, 2, 0x8000
CHARS_UTF8, POS_CHARACTER = 1, 1
PARAMETER_RATE, PARAMETER_VOLUME, PARAMETER_PITCH, PARAMETER_RANGE = 1, 2, 3, 4
EVENT_LIST_TERMINATED, EVENT_WORD, EVENT_PHONEME = 0, 1, 7

VOLUME, PITCH, PITCH_RANGE = 95, 50, 50
RANDOM_SEED = 1
STACK_BYTES = 16 * 2**20
ADDRESS_SPACE_BYTES = 2**30
MAX_REQUEST_BYTES = 2**20


class EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    ]


SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def load_espeak() -> tuple[ctypes.CDLL, int]:
    """The initialised library and its sample rate."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    # espeak-ng keeps the path in a short fixed buffer, and an installation can lie deep: name it relative to itself.
    os.chdir(espeakng_loader.get_data_path())
    options = INITIALIZE_PHONEME_EVENTS | INITIALIZE_PHONEME_IPA | INITIALIZE_DONT_EXIT
    sample_rate_hz = int(library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 200, b".", options))
    if sample_rate_hz <= 0:
        raise SystemExit("espeak-ng did not start")
    return library, sample_rate_hz


def read_exactly(count: int) -> bytes:
    """`count` bytes of standard input, or fewer where it ends."""
    blocks = []
    while count > 0:
        block = os.read(0, count)
        if not block:
            break
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks)


def write_frame(data: bytes) -> None:
    view = memoryview(len(data).to_bytes(4, "big") + data)
    while view:
        view = view[os.write(1, view) :]


def speak(library: ctypes.CDLL, text: str, voice: str, words_per_minute: int) -> tuple[dict[str, object], bytes]:
    """The answer to one request: its JSON part and its samples."""
    blocks: list[bytes] = []
    events: list[list[object]] = []

    def receive(samples: Any, count: int, found: Any) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, count * 2))
        index = 0
        while found[index].type != EVENT_LIST_TERMINATED:
            event = found[index]
            position = max(0, event.text_position - 1)  # espeak counts from 1
            if event.type == EVENT_WORD:
                events.append(["word", position, event.sample, ""])
            elif event.type == EVENT_PHONEME:
                name = bytes(event.id.string).decode("utf-8", "ignore")  # the field cuts long names
                events.append(["phoneme", position, event.sample, name])
            index += 1
        return 0

    callback = SynthCallback(receive)
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(ctypes.c_long(RANDOM_SEED))
    # A voice that cannot be set leaves the one before in place: never speak after that.
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        return {"error": "unknown_voice"}, b""
    for parameter, value in (
        (PARAMETER_RATE, words_per_minute),
        (PARAMETER_VOLUME, VOLUME),
        (PARAMETER_PITCH, PITCH),
        (PARAMETER_RANGE, PITCH_RANGE),
    ):
        if library.espeak_SetParameter(parameter, value, 0) != 0:
            return {"error": "bad_parameter"}, b""
    data = text.encode("utf-8", "replace")
    if library.espeak_Synth(data, len(data) + 1, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None) != 0:
        return {"error": "synthesis_failed"}, b""
    return {"error": None, "events": events}, b"".join(blocks)


def limit_child(timeout_seconds: float, parent_pid: int) -> None:
    """Bound what one sentence may use, also when the client that would end it is gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    cpu_seconds = int(timeout_seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds + 1.0)  # SIGALRM ends the process
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # noqa: N806
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)


def serve_one(library: ctypes.CDLL, parent_pid: int) -> int:
    """Read one request, answer it; the exit status of this child."""
    header = read_exactly(4)
    if not header:
        return END_OF_INPUT_STATUS
    size = int.from_bytes(header, "big")
    if len(header) < 4 or size > MAX_REQUEST_BYTES:
        return 1
    request = json.loads(read_exactly(size))
    limit_child(float(request["timeout_seconds"]), parent_pid)
    answer: list[tuple[dict[str, object], bytes]] = []
    # espeak-ng reads a little memory that it never wrote. A new thread has a stack of zeros whatever ran before, and
    # the client's MALLOC_PERTURB_ does the same for the heap.
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(
        target=lambda: answer.append(speak(library, request["text"], request["voice"], request["words_per_minute"]))
    )
    thread.start()
    thread.join()
    if not answer:
        return 1
    head, samples = answer[0]
    write_frame(json.dumps(head).encode())
    write_frame(samples)
    return 0


def main() -> int:
    library, sample_rate_hz = load_espeak()
    write_frame(json.dumps({"ready": True, "sample_rate_hz": sample_rate_hz}).encode())
    parent_pid = os.getpid()
    while True:
        select.select([0], [], [])
        child_pid = os.fork()
        if child_pid == 0:
            status = 1
            try:
                status = serve_one(library, parent_pid)
            finally:
                os._exit(status)
        _, wait_status = os.waitpid(child_pid, 0)
        status = os.waitstatus_to_exitcode(wait_status)
        if status == END_OF_INPUT_STATUS:
            return 0
        if status != 0:
            return 1


if __name__ == "__main__":
    sys.exit(main())
