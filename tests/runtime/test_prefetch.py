"""Items are produced ahead of the consumer, in order and up to a bounded number."""

import threading
import time

import pytest

from inception_rcnn.runtime.prefetch import map_ahead, prefetch


def test_items_come_in_order():
    assert list(prefetch(range(100), 3)) == list(range(100))
    assert list(prefetch([], 3)) == []
    assert list(prefetch([None, 1], 1)) == [None, 1]


def test_no_more_than_depth_items_are_produced_ahead():
    made = []
    enough = threading.Event()

    def items():
        for number in range(100):
            made.append(number)
            if number == 4:
                enough.set()
            yield number

    ahead = prefetch(items(), 3)
    assert next(ahead) == 0
    assert enough.wait(10)  # the consumer has 0, the queue has 1 to 3 and is full, so 4 waits
    assert made == [0, 1, 2, 3, 4]
    ahead.close()


def test_an_exception_of_the_producer_follows_the_items_before_it():
    def items():
        yield 1
        raise KeyError("gone")

    ahead = prefetch(items(), 5)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="gone"):
        next(ahead)


def test_the_thread_ends_when_the_consumer_stops():
    ahead = prefetch(iter(int, 1), 2)
    next(ahead)
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("workers", [1, 4])
def test_mapped_items_come_in_order_if_they_finish_out_of_order(workers):
    def work(number):
        time.sleep(0.02 * (number % 3 == 0))
        return -number

    assert list(map_ahead(work, range(30), workers, 6)) == [-number for number in range(30)]
    assert list(map_ahead(work, [], workers, 6)) == []


def test_no_more_than_ahead_items_are_taken():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    mapped = map_ahead(lambda number: number, items(), 2, 5)
    assert next(mapped) == 0
    assert taken == [0, 1, 2, 3, 4]
    mapped.close()
    assert taken == [0, 1, 2, 3, 4]


def test_an_exception_of_the_work_follows_the_results_before_it():
    def work(number):
        if number == 2:
            raise KeyError("gone")
        return number

    mapped = map_ahead(work, range(10), 3, 5)
    assert [next(mapped), next(mapped)] == [0, 1]
    with pytest.raises(KeyError, match="gone"):
        next(mapped)


def test_an_exception_of_the_source_follows_the_results_before_it():
    def items():
        yield from range(3)
        raise KeyError("gone")

    mapped = map_ahead(lambda number: -number, items(), 2, 5)
    assert [next(mapped), next(mapped), next(mapped)] == [0, -1, -2]
    with pytest.raises(KeyError, match="gone"):
        next(mapped)


def test_an_interruption_of_the_source_does_not_wait_for_results():
    def items():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(map_ahead(lambda number: number, items(), 2, 5))
