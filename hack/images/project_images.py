"""This project's images: for people, and without torch for the kind cluster, whose nodes have it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.images.builder import Builder, find_builder
from hack.images.debian import root_file_system
from hack.images.image_archive import ImageConfig, write_image
from hack.images.torch_layer import packages_of_torch
from hack.locks import locked
from hack.paths import CACHE, PROJECT
from hack.progress import step

REPOSITORY: Final = "localhost/model-endpoints"
SAMPLES: Final = (
    "minilm",
    "random-causal",
    "random-qa",
    "random-ranker",
    "random-seq2seq",
    "sentiment",
    "smollm2",
    "topic",
)


@dataclass(frozen=True)
class Image:
    """An image by its name, and the file that holds it."""

    name: str
    archive: Path


def serve_image() -> Image:
    """Image of Ray's head and workers for the kind cluster, with the sample models in it."""
    arguments = {"OMIT": " ".join(packages_of_torch()), "MODELS": " ".join(SAMPLES)}
    return _image("serve", "serve_app/Dockerfile", arguments)


def operator_image() -> Image:
    """The operator's image for the kind cluster."""
    return _image("operator", "operator/Dockerfile", {})


def head_store_image() -> Image:
    """Image of the store of Ray's head for the kind cluster: Debian's Redis, which Valkey is a fork of."""
    root = root_file_system(("redis-server",))
    image = Image(f"{REPOSITORY}/head-store:dev", CACHE / "images" / f"head-store-{root.name}.tar")
    with locked(image.archive):
        if not image.archive.exists():
            write_image(image.archive, image.name, root, ImageConfig())
    return image


def build_for_people(models: str) -> list[str]:
    """Build both images, torch and `models` included, and return their names.

    `models` names them as the argument MODELS of serve_app/Dockerfile does.
    """
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    builder = find_builder()
    names = []
    for name, arguments in (("serve", {"MODELS": models}), ("operator", {})):
        names.append(f"{REPOSITORY}/{name}:{version}")
        folder = "serve_app" if name == "serve" else name
        _build(builder, names[-1], f"{folder}/Dockerfile", arguments, for_docker=True)
    return names


def _image(name: str, dockerfile: str, arguments: dict[str, str]) -> Image:
    builder = find_builder()
    tag = f"{REPOSITORY}/{name}:dev"
    folder = CACHE / "images"
    with locked(folder / name):
        identifier = _build(builder, tag, dockerfile, arguments).removeprefix("sha256:")
        archive = folder / f"{name}-{identifier[:12]}.tar"
        if not archive.exists():
            # Only the newest is kept, because each is as large as Ray.
            for old in folder.glob(f"{name}-{'?' * 12}.tar"):
                old.unlink()
            builder.save(tag, archive)
            builder.drop_old_layers()
    return Image(tag, archive)


def _build(
    builder: Builder, name: str, dockerfile: str, arguments: dict[str, str], *, for_docker: bool = False
) -> str:
    with step(f"image {name}"):
        all_arguments = {"BASE_IMAGE": builder.base_image(), **arguments}
        return builder.build(dockerfile, name, all_arguments, for_docker=for_docker)
