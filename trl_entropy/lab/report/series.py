"""A logged series: its moving average, and where it begins and ends."""

WINDOW = 10  # optimizer steps that the table's first and last values are means of
ENDS = f"means of the first and the last {WINDOW} logged steps (with fewer than {2 * WINDOW}: of each half)"


def ends(values: list[float]) -> tuple[float | None, float]:
    """Means of the first and of the last `WINDOW` values, or of either half of fewer; of one value, only the last."""
    window = min(WINDOW, len(values) // 2)
    if window == 0:
        return None, values[-1]
    return sum(values[:window]) / window, sum(values[-window:]) / window


def smooth(values: list[float]) -> list[float]:
    """Mean of the last values up to each step, `WINDOW` of them."""
    return [sum(values[max(0, i + 1 - WINDOW) : i + 1]) / min(i + 1, WINDOW) for i in range(len(values))]
