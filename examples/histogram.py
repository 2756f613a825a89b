"""A histogram that is filled piece by piece and written to a ROOT file with its titles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from uproot.writing.identify import to_TAxis, to_TH1x


class Histogram:
    """Counts of values in ``bins`` equal bins from ``low`` to ``high``, and of those outside."""

    def __init__(
        self, name: str, title: str, axis: str, bins: int, low: float, high: float
    ) -> None:
        self.name = name
        self.title = title
        self.axis = axis
        self.bins, self.low, self.high = bins, low, high
        self.counts = np.zeros(bins + 2)  # the first and the last one count what lies outside
        self.entries = 0
        self._sum = self._sum_of_squares = 0.0

    def fill(self, values: npt.NDArray[Any]) -> None:
        """Counts each finite value."""
        finite = values[np.isfinite(values)].astype(float)
        position = (finite - self.low) / (self.high - self.low) * self.bins
        bins = np.clip(np.floor(position), -1, self.bins).astype(int) + 1
        self.counts += np.bincount(bins, minlength=self.bins + 2)
        inside = finite[(bins > 0) & (bins <= self.bins)]
        self.entries += len(finite)
        self._sum += float(inside.sum())
        self._sum_of_squares += float(np.square(inside).sum())

    def root(self) -> object:
        """The TH1D that uproot writes under ``name``."""
        inside = float(self.counts[1:-1].sum())
        axis = to_TAxis("xaxis", self.axis, self.bins, self.low, self.high)
        return to_TH1x(
            self.name,
            self.title,
            self.counts,
            self.entries,
            inside,
            inside,
            self._sum,
            self._sum_of_squares,
            self.counts,
            axis,
        )
