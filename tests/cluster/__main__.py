"""The command: binaries and clusters for the tests, ahead of them or for a person."""

import argparse
import sys

from tests.cluster import kind
from tests.cluster.binaries import binary_path
from tests.cluster.catalogue import CATALOGUE
from tests.cluster.errors import CannotBuildError, CommandError, KubectlError, MissingError
from tests.cluster.node_image import node_image
from tests.cluster.project_images import build_for_people


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make binaries that are neither on the PATH nor in the cache")
    build.add_argument("names", nargs="+", metavar="NAME", help=f"one of: {', '.join(CATALOGUE)}")
    commands.add_parser(
        "up", help="make the cluster of kind-config.yaml, with KubeRay and this project's images"
    )
    commands.add_parser("down", help="remove it again")
    images = commands.add_parser("images", help="build this project's images, with everything in them")
    images.add_argument(
        "--models", default="", help="models to put in: folders of models/build, or hf://org/name@revision"
    )
    commands.add_parser(
        "node-image", help="make the image of a node, for machines that cannot pull kindest/node"
    )
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except (CannotBuildError, CommandError, KubectlError, MissingError) as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "build":
            for name in arguments.names:
                print(binary_path(name))
        case "up":
            cluster = kind.up()
            print(f"The cluster is up: kubectl --context kind-{cluster.name} get nodes")
        case "down":
            kind.down()
        case "images":
            for name in build_for_people(arguments.models):
                print(name)
        case "node-image":
            print(*node_image())


if __name__ == "__main__":
    main()
