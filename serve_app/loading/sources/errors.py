"""The error of a model that cannot be had."""


class SourceError(Exception):
    """There is no model at the URI, or it may not come from there."""
