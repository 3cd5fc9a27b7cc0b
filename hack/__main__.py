"""Clusters, images, programs and generated files. All commands but `build` are also targets of make."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from hack.cluster import kind
from hack.cluster.node_image import node_image
from hack.errors import CannotBuildError, CommandError, KubectlError, MissingError, StaleError
from hack.generate import generate, verify
from hack.images.project_images import build_for_people
from hack.toolchain.binaries import binary_path
from hack.toolchain.catalogue import CATALOGUE
from hack.toolchain.debian_programs import PACKAGES, debian_program


def main() -> None:
    arguments = vars(_parser().parse_args())
    command = arguments.pop("command")
    try:
        command(**arguments)
    except (CannotBuildError, CommandError, KubectlError, MissingError, StaleError) as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hack", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., Any], summary: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=summary)
        subparser.set_defaults(command=command)
        return subparser

    add("kind-up", _kind_up, "make the cluster of kind-config.yaml, with KubeRay and this project's images")
    add("kind-down", kind.down, "remove it again")
    add("kind-node-image", _kind_node_image, "make the image of a node, where kindest/node cannot be pulled")
    images = add("images", _images, "build this project's images, with everything in them")
    images.add_argument(
        "--models", default="", help="models to put in: folders of models/build, or hf://org/name@revision"
    )
    add("generate", generate, "write the files that are made from others")
    add("verify", verify, "check that the generated CRD is fresh")
    build = add("build", _build, "make binaries that are neither on the PATH nor in the cache")
    build.add_argument(
        "names", nargs="+", metavar="NAME", help=f"one of: {', '.join([*CATALOGUE, *PACKAGES])}"
    )
    return parser


def _kind_up() -> None:
    cluster = kind.up()
    print(f"The cluster is up: kubectl --context kind-{cluster.name} get nodes")


def _kind_node_image() -> None:
    print(*node_image())


def _images(models: str) -> None:
    for name in build_for_people(models):
        print(name)


def _build(names: list[str]) -> None:
    for name in names:
        print(debian_program(name) if name in PACKAGES else binary_path(name))


if __name__ == "__main__":
    main()
