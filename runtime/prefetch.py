"""Runs producers in threads, a bounded number of items ahead of the consumer."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yields the items in order; a thread produces up to `depth` items in advance.

    If `items` raises an exception, the items before it are yielded first, then the exception is raised. If the consumer
    stops early, the producer stops after its current item.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()
    end = object()

    def offer(item: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                offer((item, None))
                if stop.is_set():
                    return
            offer(end)
        except BaseException as error:  # the consumer raises it
            offer((None, error))

    thread = threading.Thread(target=produce, daemon=True, name="prefetch")
    thread.start()
    try:
        while (received := ready.get()) is not end:
            item, error = received
            if error is not None:
                raise error
            yield item
    finally:
        stop.set()
        thread.join()


def map_ahead(work: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Generator[R, None, None]:
    """Yields `work(item)` for every item in order, computed in `workers` threads.

    At most `max(ahead, workers)` items are in progress at a time, so that memory use does not grow with the number of
    items. If `work` or `items` raises an exception, the results before it are yielded first. If the consumer stops
    early, items in progress are finished and no further items are taken.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="map_ahead") as pool:
        source = iter(items)
        while True:
            try:
                pending.append(pool.submit(work, next(source)))
            except StopIteration:
                break
            except Exception as error:  # raised after the results before it
                failed: Future[R] = Future()
                failed.set_exception(error)
                pending.append(failed)
                break
            if len(pending) >= max(ahead, workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
