"""Work that runs ahead of its consumer, in threads, by a bounded number of items."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items in the same order; up to `depth` of them are made while the consumer is busy.

    What the producer raises is raised here, after the items before it. When the consumer stops early, so does the
    producer, after the item that it is making.
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
        except BaseException as error:  # handed to the consumer
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
    """`work(item)` for every item, in the order of the items, computed in `workers` threads.

    At most `ahead` items (at least `workers`) are on their way at a time, so that memory does not grow with their
    number. What `work` or the items raise is raised here, after the results before it. When the consumer stops early
    no further items are taken; those on their way are finished first.
    """
    on_their_way: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="map_ahead") as pool:
        for item in items:
            on_their_way.append(pool.submit(work, item))
            if len(on_their_way) >= max(ahead, workers):
                yield on_their_way.popleft().result()
        while on_their_way:
            yield on_their_way.popleft().result()
