"""The command: `python -m tests.cluster build NAME…` makes binaries ahead of the tests that need them."""

import argparse
import sys

from tests.cluster.binaries import binary_path
from tests.cluster.catalogue import CATALOGUE
from tests.cluster.errors import CannotBuildError


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make binaries that are neither on the PATH nor in the cache")
    build.add_argument("names", nargs="+", metavar="NAME", help=f"one of: {', '.join(CATALOGUE)}")
    arguments = parser.parse_args()
    try:
        for name in arguments.names:
            print(binary_path(name))
    except CannotBuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
