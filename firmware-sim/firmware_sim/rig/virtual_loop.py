"""An event loop in which nobody waits: when nothing can run, time jumps to the next timer.

A story of three hours plays in seconds and always in the same order, so a failure can be played again. The loop has no
selector and no sockets: everything that waits must wait for a timer or for another coroutine (memory links do).
Blocking functions handed to an executor run at once, in place: virtual time stands still meanwhile, and the result
does not depend on thread scheduling. A real thread that calls in is refused, because the moment at which it would be
heard is a matter of luck.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: A timer due within this time runs now (s). Far below the millisecond anybody states, far above float rounding.
RESOLUTION_S = 1e-7
#: So many turns of the loop without time moving is a coroutine spinning on sleep(0).
SPIN_LIMIT = 1_000_000


class VirtualStall(RuntimeError):
    """Time cannot move on: somebody waits for what cannot happen on this loop, or never stops running."""


class ForeignThread(RuntimeError):
    """A thread (or a real socket) tried to take part in virtual time."""


class _Jump:
    """Stands where the selector stands in a real loop: instead of sleeping, it moves the time on."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._turns = 0

    def select(self, timeout_s: float | None) -> list[Any]:
        if timeout_s is None:
            self._loop.stalled("nothing can run and no timer is set")
        if timeout_s > 0:
            self._turns = 0
            self._loop.advance(timeout_s)
        else:
            self._turns += 1
            if self._turns > SPIN_LIMIT:
                self._loop.stalled("time does not move although something always runs")
        return []

    def close(self) -> None:
        """Holds nothing."""


class VirtualLoop(BaseEventLoop):
    """Deterministic loop; ``time()`` is seconds since its start, ``now_ms()`` the UTC it plays."""

    def __init__(self, start_ms: int = 0) -> None:
        super().__init__()
        self.start_ms = start_ms
        self._now_s = 0.0
        self._selector = _Jump(self)
        self._clock_resolution = RESOLUTION_S
        self._foreign: str | None = None
        self._owner = threading.get_ident()

    # -- time ---------------------------------------------------------------------------------------------------
    def time(self) -> float:
        return self._now_s

    def now_ms(self) -> int:
        return self.start_ms + round(self._now_s * 1000)

    def advance(self, by_s: float) -> None:
        self._now_s += by_s

    def stalled(self, why: str) -> NoReturn:
        waiting = "; ".join(sorted(_describe(task) for task in asyncio.all_tasks(self)))
        raise VirtualStall(f"virtual time {self._now_s:.3f} s: {why}; waiting: {waiting or 'nobody'}")

    # -- what BaseEventLoop asks of its child ------------------------------------------------------------------
    def _process_events(self, event_list: list[Any]) -> None:
        if self._foreign is not None:
            caller, self._foreign = self._foreign, None
            raise ForeignThread(f"thread {caller} called into a virtual loop; use memory links and run_in_executor")

    def _write_to_self(self) -> None:
        """The loop never sleeps, so nobody has to wake it."""

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if threading.get_ident() != self._owner:
            # Raised on both sides: the thread learns it here, the loop at its next turn.
            self._foreign = threading.current_thread().name
            raise ForeignThread("a thread cannot call into a virtual loop: the virtual time of the call would be luck")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # any outcome of the function belongs to whoever awaits it
            done.set_exception(error)
        else:
            done.set_result(result)
        return done

    # -- what would bring real time in --------------------------------------------------------------------------
    # Connections, servers and pipes all end up in one of these; the base class would say NotImplementedError.
    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ForeignThread("real sockets, files and processes do not run in virtual time; use memory links")

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        self._refuse()

    def add_writer(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        self._refuse()

    _make_socket_transport = _refuse
    _make_ssl_transport = _refuse
    _make_datagram_transport = _refuse
    _make_read_pipe_transport = _refuse
    _make_write_pipe_transport = _refuse
    _make_subprocess_transport = _refuse
    _start_serving = _refuse
    _add_reader = _refuse
    _add_writer = _refuse
    sock_connect = _refuse
    sock_recv = _refuse
    sock_sendall = _refuse
    sock_accept = _refuse


def _describe(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    where = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "?"
    return f"{task.get_name()} at {where}"


def run_virtual(main: Coroutine[Any, Any, T], start_ms: int = 0) -> T:
    """Run ``main`` to its end in virtual time; ``start_ms`` is the UTC at which it begins."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start_ms)) as runner:
        return runner.run(main)
