"""Shares from 0 to 1 in per cent, as people read them."""


def percent(share: float | None) -> str:
    """0.8485 -> `84.85 %`."""
    return "-" if share is None else f"{100 * share:.2f} %"


def whole_percent(share: float) -> str:
    """Whole per cent; anything below 1 is never shown as 100 %."""
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"
