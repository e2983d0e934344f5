"""Utilities shared by all subpackages; no torch here."""
