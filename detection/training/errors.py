"""The error that every training raises."""


class TrainingError(RuntimeError):
    """Training cannot start or continue. The message names the reason and the remedy."""
