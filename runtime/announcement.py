"""Tells the user, once in a process, that a first run takes longer than later runs."""

import logging

_logger = logging.getLogger(__name__.split(".")[0])
_said: set[str] = set()


def announce_once(message: str) -> None:
    """Logs `message` as a warning to the logger "inception_rcnn", unless this process has logged it before.

    Without a configuration of `logging`, Python prints it to stderr.
    """
    if message not in _said:
        _said.add(message)
        _logger.warning(message)
