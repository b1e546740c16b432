"""Counts as people write them."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 image`, `2 images`; `many` is the plural where it is not `one` with an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"
