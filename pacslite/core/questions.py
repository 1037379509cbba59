"""Questions to things that may hang (a database, an object store, a disk), answered in bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from pacslite.errors import Unavailable

T = TypeVar("T")


class Questions(Generic[T]):
    """Asks each question in a thread of its own; one without an answer yet is not asked a second time, so that none pile up."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._asked: dict[Hashable, Future[T]] = {}

    def ask(self, whom: Hashable, questions: Mapping[str, Callable[[], T]]) -> dict[str, T | Exception]:
        """The answer to each question or the error it ended in, which is Unavailable when there is none in time."""
        futures = {name: self._ask((whom, name), question) for name, question in questions.items()}
        wait(futures.values(), self.seconds)
        return {name: self._answer(future) for name, future in futures.items()}

    def _answer(self, future: Future[T]) -> T | Exception:
        if not future.done():
            return Unavailable(f"no answer within {self.seconds:g} s")
        error = future.exception()
        return future.result() if error is None else error if isinstance(error, Exception) else Unavailable("broken off")

    def _ask(self, key: Hashable, question: Callable[[], T]) -> Future[T]:
        with self._lock:
            future = self._asked.get(key)
            if future is not None:
                return future
            future = self._asked[key] = Future()
        # A daemon: a question that never ends is not waited for when the process does.
        try:
            threading.Thread(target=self._run, args=(key, question, future), name="question", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left; the next one who asks may have better luck
            with self._lock:
                del self._asked[key]
            future.set_exception(error)
        return future

    def _run(self, key: Hashable, question: Callable[[], T], future: Future[T]) -> None:
        try:
            answer = question()
        except Exception as error:  # noqa: BLE001 - it is the answer
            outcome: T | Exception = error
            failed = True
        else:
            outcome, failed = answer, False
        with self._lock:
            self._asked.pop(key, None)
        if failed:
            assert isinstance(outcome, Exception)
            future.set_exception(outcome)
        else:
            future.set_result(outcome)  # type: ignore[arg-type]
