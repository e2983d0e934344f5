"""What libraries warn of that is usual here: about as many classes as labels."""

FEW_LABELS = "The number of unique classes is greater|The least populated class"
"""Matches scikit-learn's warnings of few labels a class."""
