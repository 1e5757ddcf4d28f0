"""One thread decodes the codes of everybody: rows of many callers join one batch and leave it when they are done.

A caller hands in a row and reads its codes as they come. What a row gets does not depend on who else is in the batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from types import TracebackType

from synthesis.engines.errors import EngineCrashedError, EngineError
from synthesis.engines.gpt_sovits.semantic import DecodeBatch, FinishReason, SemanticDecoder, SemanticRow

ROWS = 16  # decoded together; more wait for a place
POSITIONS = 2_560  # of one row: 60 s of codes, 10 s of prompt, and 800 phones of both texts


class CodeStream(Iterator[int]):
    """The codes of one row, in order. `ended` after the last: the model stopped by itself, not at the row's limit.

    Iterating raises what decoding raised. `close` gives the row's place to somebody else; harmless at any time.
    """

    def __init__(self) -> None:
        self.ended = False
        self.is_closed = False
        self._events: SimpleQueue[int | FinishReason | EngineError] = SimpleQueue()
        self._is_over = False

    def __next__(self) -> int:
        if self._is_over or self.is_closed:
            raise StopIteration
        event = self._events.get()
        if isinstance(event, int):
            return event
        self._is_over = True
        if isinstance(event, EngineError):
            raise event
        self.ended = event is FinishReason.END
        raise StopIteration

    def __enter__(self) -> CodeStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.is_closed = True

    def deliver(self, event: int | FinishReason | EngineError) -> None:
        self._events.put(event)


class DecodeLoop:
    """Owns the batch. Its thread starts with the first row and sleeps while there is none."""

    def __init__(self, decoder: SemanticDecoder, *, rows: int = ROWS, positions: int = POSITIONS) -> None:
        self._decoder = decoder
        self._rows = rows
        self._positions = positions
        self._batch = self._make_batch()
        self._live: dict[int, CodeStream] = {}  # by the batch's number; of the thread alone
        self._waiting: deque[tuple[SemanticRow, CodeStream]] = deque()
        self._changed = threading.Condition()  # guards what follows and `_waiting`
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, *rows: SemanticRow) -> list[CodeStream]:
        """Queue rows for decoding; they join the batch, together where there is room, at its next step.

        A row that cannot be decoded (SegmentTooLongError, InvalidSemanticRowError) says so through its stream.
        """
        streams = [CodeStream() for _ in rows]
        with self._changed:
            if self._is_closed:
                raise EngineError("The engine is closed.")
            self._waiting.extend(zip(rows, streams, strict=True))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="decode-loop", daemon=True)
                self._thread.start()
            self._changed.notify()
        return streams

    def close(self) -> None:
        """End the thread; streams that are still open raise EngineCrashedError. A second call does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _make_batch(self) -> DecodeBatch:
        return DecodeBatch(self._decoder, rows=self._rows, positions=self._positions)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._waiting or self._live)
                if self._is_closed:
                    break
            try:
                self._drop_closed()
                self._admit()
                self._step()
            except Exception as error:  # a step has no result then; who was in it may try again
                self._fail_all(error)
                self._batch = self._make_batch()
        self._fail_all(EngineError("The engine was closed."))

    def _drop_closed(self) -> None:
        for number in [number for number, stream in self._live.items() if stream.is_closed]:
            self._batch.remove(number)
            del self._live[number]

    def _admit(self) -> None:
        """All that wait, as far as there is room: their prefill is one run."""
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(min(self._batch.free, len(self._waiting)))]
        taken = [(row, stream) for row, stream in taken if not stream.is_closed]
        try:
            numbers = self._batch.admit([row for row, _ in taken])
        except EngineError:  # one by one: only the row that is wrong stays out
            for row, stream in taken:
                try:
                    [number] = self._batch.admit([row])
                except EngineError as error:
                    stream.deliver(error)
                else:
                    self._live[number] = stream
        except Exception as error:  # out of memory, say: they are in no list by which others would tell them
            for _, stream in taken:
                stream.deliver(_crash(error))
            raise
        else:
            self._live.update(zip(numbers, (stream for _, stream in taken), strict=True))

    def _step(self) -> None:
        for event in self._batch.step():
            stream = self._live[event.row]
            if event.code is not None:
                stream.deliver(event.code)
            if event.finish is not None:
                stream.deliver(event.finish)
                del self._live[event.row]

    def _fail_all(self, error: Exception) -> None:
        """Tell everybody who waits. What is no error of ours (out of memory, say) may not happen again."""
        told = error if isinstance(error, EngineError) else _crash(error)
        with self._changed:
            waiting, self._waiting = list(self._waiting), deque()
        for stream in [*self._live.values(), *(stream for _, stream in waiting)]:
            stream.deliver(told)
        self._live.clear()


def _crash(error: Exception) -> EngineCrashedError:
    return EngineCrashedError("Decoding failed; it may work the next time.", reason=type(error).__name__)
