"""Causal models in steps: attention over a cache of places, and the choice of the next tokens."""
