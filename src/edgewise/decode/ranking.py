"""The largest entries of a row, fast and exactly: what top-k, top-p and log probabilities start from."""

from typing import Any

import numpy as np
import numpy.typing as npt

COLUMNS = 4096


def ranked(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` largest, largest first, ties by index. values (n,), no NaN. Exact; about five passes."""
    size = len(values)
    if count >= size:
        index = np.arange(size)
    else:
        index = np.flatnonzero(values >= _floor(values, count))  # ascending, so a stable sort keeps ties in order
    return index[np.argsort(-values[index], kind="stable")][:count]


def _floor(values: npt.NDArray[Any], count: int) -> Any:
    """A number that at least `count` of the values reach, and not many more."""
    whole = len(values) // COLUMNS * COLUMNS
    if whole < 2 * COLUMNS or count > COLUMNS // 8:
        return np.partition(values, len(values) - count)[len(values) - count]
    # The count-th largest column maximum is reached by `count` columns, and the columns are few enough to select from.
    peaks = values[:whole].reshape(-1, COLUMNS).max(axis=0)
    return np.partition(peaks, COLUMNS - count)[COLUMNS - count]
