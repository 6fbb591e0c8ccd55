"""Work on the parts of a file, here or in processes beside this one: the same results in order.

A kind of work is a module-level `WORK`: what it needs to know, and a function of one part. Helpers
are `python -m afina.data.beside MODULE`; they get parts through their standard input, answer on
their standard output, and end when that input ends, so none outlives the process that started it.
A helper that dies (out of memory, say) costs nothing but time: its part is done here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Generic, TypeVar

import msgspec

from afina.data.chunks import Chunk
from afina.settings import child_environment

S = TypeVar("S")
R = TypeVar("R")
_LENGTH_BYTES: Final = 8
_MOST_PROCESSES: Final = 8
_AHEAD: Final = 2
"""Parts a helper that may be done before they are asked for: they wait in memory."""
_CLOSING_S: Final = 5.0


@dataclass(frozen=True)
class Work(Generic[S, R]):
    """What is done with each part. Setup and result are types that msgspec can write."""

    module: str
    setup: type[S]
    result: type[R]
    begin: Callable[[S], Callable[[Chunk], R]]
    """From the setup to the function of a part."""


def processes_for(path: Path, least_bytes: int) -> int:
    """How many processes are worth their start for a file: one for each core, or none beside."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, _MOST_PROCESSES) if path.stat().st_size >= least_bytes else 1


def run_chunks(
    work: Work[S, R], setup: S, chunks: Iterable[Chunk], processes: int
) -> Generator[tuple[Chunk, R], None, None]:
    """Each part and what came out, in order. Raises what the work raises."""
    if processes <= 1:
        one = work.begin(setup)
        for chunk in chunks:
            yield chunk, one(chunk)
        return
    with _Helpers(work, setup, processes) as helpers:
        yield from helpers.run(chunks)


class _Helpers(Generic[S, R]):
    def __init__(self, work: Work[S, R], setup: S, count: int) -> None:
        self._work = work
        self._setup = setup
        self._count = count
        self._started: list[subprocess.Popen[bytes]] = []
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._decoder = msgspec.msgpack.Decoder(work.result)
        self._here: Callable[[Chunk], R] | None = None

    def __enter__(self) -> _Helpers[S, R]:
        environment = child_environment(TOKENIZERS_PARALLELISM="false")
        command = [sys.executable, "-P", "-m", "afina.data.beside", self._work.module]
        first = msgspec.msgpack.encode(self._setup)
        for _ in range(self._count):
            helper = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            self._started.append(helper)
            with contextlib.suppress(OSError):
                _write(_in(helper), first)
            self._free.put(helper)
        self._threads = ThreadPoolExecutor(self._count, "beside")
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self._started:
            with contextlib.suppress(OSError):
                _in(helper).close()
            helper.kill()
        self._threads.shutdown(cancel_futures=True)
        for helper in self._started:
            helper.wait(_CLOSING_S)
            if helper.stdout is not None:
                helper.stdout.close()

    def run(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, R]]:
        waiting: deque[tuple[Chunk, Future[R | None]]] = deque()
        for chunk in chunks:
            waiting.append((chunk, self._threads.submit(self._ask, chunk)))
            if len(waiting) > self._count * _AHEAD:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: deque[tuple[Chunk, Future[R | None]]]) -> tuple[Chunk, R]:
        chunk, future = waiting.popleft()
        result = future.result()
        if result is None:
            self._here = self._here or self._work.begin(self._setup)
            result = self._here(chunk)
        return chunk, result

    def _ask(self, chunk: Chunk) -> R | None:
        """A helper's answer; None where it died over it, or before."""
        helper = self._free.get()
        try:
            _write(_in(helper), msgspec.msgpack.encode(chunk))
            answer = None if helper.stdout is None else _read(helper.stdout)
            return None if answer is None else self._decoder.decode(answer)
        except OSError:
            return None
        finally:
            self._free.put(helper)


def _in(helper: subprocess.Popen[bytes]) -> Any:
    return helper.stdin


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(len(content).to_bytes(_LENGTH_BYTES, "little") + content)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """One message, None at the end."""
    length = stream.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(length, "little")
    content = stream.read(size)
    return content if len(content) == size else None


def serve(work: Work[Any, Any], source: IO[bytes], target: IO[bytes]) -> None:
    """Answers parts until there are no more."""
    first = _read(source)
    if first is None:
        return
    one = work.begin(msgspec.msgpack.decode(first, type=work.setup))
    while (asked := _read(source)) is not None:
        _write(target, msgspec.msgpack.encode(one(msgspec.msgpack.decode(asked, type=Chunk))))


def main() -> None:
    """The helper's life. What it prints goes to standard error: standard output is for answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work = importlib.import_module(sys.argv[1]).WORK
    with contextlib.suppress(BrokenPipeError):
        serve(work, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
