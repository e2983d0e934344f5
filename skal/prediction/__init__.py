"""A trained network on any number of other images."""
