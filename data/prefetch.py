"""Run an iterator ahead of its consumer, in a thread, by a bounded number of items."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


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
