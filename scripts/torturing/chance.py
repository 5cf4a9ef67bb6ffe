"""The one place where chance comes from: always from a seed, so that a run can be repeated."""

from random import Random


def chance(*seed: object) -> Random:
    """The same numbers for the same seed."""
    return Random(":".join(map(str, seed)))  # noqa: S311 - made-up visitors and moments, no secrets
