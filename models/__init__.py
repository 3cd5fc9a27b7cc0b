"""Marks the folder as a package, so that `python -m models.build` works; must stay empty."""
