"""What can go wrong here, in words for the person at the terminal."""


class CannotBuildError(Exception):
    """A binary is neither there nor can be built."""


class StartError(Exception):
    """A control plane did not come up; the message holds what its processes wrote."""


class PortTakenError(StartError):
    """The API server found that another process had taken its port."""


class KubectlError(Exception):
    """kubectl failed; the message is what it wrote to the terminal."""


class CommandError(Exception):
    """A program failed; the message is its command line and what it said."""


class MissingError(Exception):
    """The machine lacks something; the message is one sentence with the command that brings it."""
