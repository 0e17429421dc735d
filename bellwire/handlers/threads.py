"""DaemonThreads: runs functions that are not async. A function that does not return keeps no process from ending."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: A call that sets its future, and the future; None: the thread ends.
_Work = tuple[Callable[[], None], Future[object]] | None


class DaemonThreads(Executor):
    """Up to `maximum` threads, begun as they are needed. Those of ThreadPoolExecutor are joined when the interpreter ends."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._queue = SimpleQueue[_Work]()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._is_shut_down = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call the function in a thread, once one is free."""
        future = Future[T]()

        def run() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("the process ends: no more functions are called")
            self._queue.put((run, future))  # type: ignore[arg-type]
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._maximum:
                name = f"bellwire-handler_{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads once they are idle."""
        with self._lock:
            self._is_shut_down = True
            while cancel_futures:
                try:
                    work = self._queue.get_nowait()
                except Empty:
                    break
                if work:
                    work[1].cancel()
            for _ in self._threads:
                self._queue.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            run, future = work
            if future.set_running_or_notify_cancel():
                run()
            del work, run, future
            self._idle.release()
