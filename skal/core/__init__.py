"""Words that all rooms use; no torch here."""
