"""Durations in words."""


def duration(seconds: float) -> str:
    """A duration with two digits of precision in words: "8 s", "3 min", "2 h 10 min", "3 days"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes / 60 / 24:.0f} days"
