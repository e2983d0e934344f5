"""Pictures of runs and of comparisons. Imports no torch."""

from .comparisons import (
    Analysis,
    column_means,
    comparison_curves,
    difference_curves,
    efficiency_bars,
    looks,
    noise_curves,
    penalty_heatmap,
    ranks_diagram,
)
from .drawing import Look, Pictures
from .runs import calibration_picture, confusion_picture, learning_curve, loss_curve

__all__ = [
    "Analysis",
    "Look",
    "Pictures",
    "calibration_picture",
    "column_means",
    "comparison_curves",
    "confusion_picture",
    "difference_curves",
    "efficiency_bars",
    "learning_curve",
    "looks",
    "loss_curve",
    "noise_curves",
    "penalty_heatmap",
    "ranks_diagram",
]
