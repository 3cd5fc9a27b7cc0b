"""The processes of a service of ours, by what Ray calls them."""

import psutil


def replicas_of(command: psutil.Process, name: str = "") -> list[psutil.Process]:
    """Return the processes of the model's replicas below our command, or those of all models.

    What follows the model's name in the title of the process, such as ":Model", may be part of `name`.
    """
    title = f"ray::ServeReplica:{name}"
    return [each for each in command.children(recursive=True) if title_of(each).startswith(title)]


def title_of(process: psutil.Process) -> str:
    """Return the command line of a process, which Ray changes; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
