"""Causal models that are computed step by step: attention over a cache of places, and the choice of tokens."""
