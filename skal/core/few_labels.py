"""Library warnings that are expected here, where there are about as many classes as labels."""

FEW_LABELS = "The number of unique classes is greater|The least populated class"
"""Matches scikit-learn's warnings about few labels per class."""
