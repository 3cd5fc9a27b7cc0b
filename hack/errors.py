"""Errors whose message is meant for the person at the terminal."""


class CannotBuildError(Exception):
    """A program is missing and cannot be built."""


class KubectlError(Exception):
    """kubectl failed; the message is what it wrote to the terminal."""


class CommandError(Exception):
    """A program failed; the message is its command line and what it said."""


class MissingError(Exception):
    """The machine lacks something; the message is one sentence with the command that brings it."""


class StaleError(Exception):
    """A generated file is not what it would be if generated now; the message holds the differences."""
