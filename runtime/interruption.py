"""Ends a command on Ctrl-C or SIGTERM: at once, with a message, without a traceback and without half-written files.

All files of the commands survive a killed process: results are committed one by one, and `atomic_write` replaces files
whole. A signal therefore ends the process without unwinding the stack, which could take as long as a batch of regions.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

from .atomic_write import discard_unfinished

# Python calls signal handlers in the main thread, between two bytecodes. If the main thread does not get there within
# this many seconds, because it compiles a network or waits for a lock, another thread ends the process.
_PATIENCE = 0.5
# The message is written within this many seconds, or left out. A pipe that nobody reads takes no message.
_LONGEST_MESSAGE = 1.0

_installed = False
_leaving = threading.Lock()


def _nothing_kept() -> str:
    return "the command has written nothing yet; repeat it to start again"


_message: Callable[[], str] = _nothing_kept


def say_when_interrupted(message: Callable[[], str]) -> None:
    """Set the text that says what is kept and how to go on. It is computed when a signal comes, in any thread."""
    global _message
    _message = message


def end_on_signals() -> None:
    """From now on, SIGINT and SIGTERM end the process with exit code 130 and 143. Call this in the main thread."""
    global _installed
    if _installed:
        return
    _installed = True
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
    # The thread keeps both sockets open.
    threading.Thread(target=_watch, args=(reader, writer), daemon=True, name="interruption").start()


def _forget() -> None:
    """In a forked process, such as a worker that reads pictures: signals concern this process only."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(reader: socket.socket, writer: socket.socket) -> None:
    while True:
        number = reader.recv(1)[0]
        if number in (signal.SIGINT, signal.SIGTERM):
            threading.Event().wait(_PATIENCE)
            _end(number, None)


def _end(number: int, frame: FrameType | None) -> None:
    if not _leaving.acquire(blocking=False):
        return
    speaker = threading.Thread(target=_say, args=(number,), daemon=True)
    speaker.start()
    speaker.join(_LONGEST_MESSAGE)
    discard_unfinished()
    os._exit(128 + number)


def _say(number: int) -> None:
    try:
        text = f"stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}: {_message()}\n"
    except Exception as error:
        text = f"stopped: {error}\n"
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        text = f"\n\x1b[?25h{text}"  # below a progress bar, which hides the cursor
    os.write(2, text.encode(errors="backslashreplace"))
