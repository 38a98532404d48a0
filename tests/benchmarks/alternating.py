"""Times functions in one process, turn by turn, so that all see the same machine, as ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def median_ratios(
    functions: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, tuple[float, float]]:
    """Returns each function's median time in seconds, and the median of its ratio to the first's.

    Args:
        functions: Name -> what to time; the first is the reference.
        rounds: How often each is run and timed.
        warm_up: How often each is run before that.
    """
    for _ in range(warm_up):
        for function in functions.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    reference = next(iter(times.values()))
    return {
        name: (
            statistics.median(own),
            statistics.median(t / r for t, r in zip(own, reference, strict=True)),
        )
        for name, own in times.items()
    }
