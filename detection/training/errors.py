"""The error of every training command."""


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what to do."""
