"""Read ModelEndpoint manifests from files, with the line of each error."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml
from pydantic import ValidationError

from endpoint_operator.api.types import ModelEndpoint, parse_endpoint
from endpoint_operator.api.validation import Problem, describe

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True)
class ManifestError:
    """One error in a file, and its line (from 1)."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Located:
    """An endpoint and the line (from 1) where its manifest begins."""

    endpoint: ModelEndpoint
    line: int


@dataclass(frozen=True)
class ManifestFile:
    """The content of one file; if it has errors, its endpoints must not be used."""

    path: Path
    endpoints: tuple[Located, ...]
    errors: tuple[ManifestError, ...]


def manifest_paths(arguments: Iterable[Path]) -> list[Path]:
    """Return the files that `arguments` name; a folder stands for its manifests, sorted by name."""
    paths: list[Path] = []
    for argument in arguments:
        if argument.is_dir():
            paths += sorted(path for path in argument.iterdir() if path.suffix in SUFFIXES)
        else:
            paths.append(argument)
    return list(dict.fromkeys(paths))


def read_manifest(path: Path) -> ManifestFile:
    """Read one file; that it cannot be read is an error of the result too."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return _only_error(path, 1, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return _only_error(path, 1, f"is not UTF-8: {error.reason} at byte {error.start}")
    endpoints: list[Located] = []
    errors: list[ManifestError] = []
    try:
        # JSON may be indented with tabs, which YAML rejects. Strings of JSON contain no tabs.
        for node, document in _documents(text.expandtabs() if path.suffix == ".json" else text):
            found = _read_document(path, node, document)
            if isinstance(found, Located):
                endpoints.append(found)
            else:
                errors += found
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        errors.append(ManifestError(path, line, f"is not valid YAML: {error.problem}"))
    except (yaml.YAMLError, ValueError) as error:
        # The cause is a forbidden character, or a scalar such as an impossible date.
        errors.append(ManifestError(path, 1, f"is not valid YAML: {' '.join(str(error).split())}"))
    except RecursionError:
        errors.append(ManifestError(path, 1, "is nested too deeply"))
    return ManifestFile(path, tuple(endpoints), tuple(errors))


def _only_error(path: Path, line: int, message: str) -> ManifestFile:
    return ManifestFile(path, (), (ManifestError(path, line, message),))


def _documents(text: str) -> Iterator[tuple[yaml.Node, Any]]:
    """Yield each document as YAML's tree, which has line numbers, and as plain values."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = cast(yaml.Node, loader.get_node())
            _refuse_duplicate_keys(node)
            document = loader.construct_document(node)
            if document is not None:
                yield node, document
    finally:
        loader.dispose()


def _refuse_duplicate_keys(node: yaml.Node) -> None:
    # PyYAML silently keeps the last of two equal keys.
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        _refuse_duplicate_keys(value)


def _read_document(path: Path, node: yaml.Node, document: Any) -> Located | list[ManifestError]:
    try:
        return Located(parse_endpoint(document), node.start_mark.line + 1)
    except ValidationError as error:
        problems = describe(error, ModelEndpoint)
        return [ManifestError(path, _line_of(node, problem), str(problem)) for problem in problems]


def _line_of(node: yaml.Node, problem: Problem) -> int:
    """Return the line of the field; of the innermost part around it if the field is missing."""
    line = node.start_mark.line + 1
    for part in problem.path:
        child = _child(node, part)
        if child is None:
            break
        key, node = child
        line = key.start_mark.line + 1
    return line


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


class Workspace:
    """The endpoints of a set of files and folders; a file with errors keeps its last valid content."""

    def __init__(self, arguments: Sequence[Path]) -> None:
        self.arguments = arguments
        self._good: dict[Path, tuple[Located, ...]] = {}

    def reread(self) -> tuple[ManifestError, ...]:
        """Read all files again and return their errors.

        If a name is used twice, the endpoint that is served keeps it: files with errors come first, then
        files that were read before, then new ones.
        """
        manifests = [read_manifest(path) for path in manifest_paths(self.arguments)]
        manifests.sort(key=lambda manifest: (not manifest.errors, manifest.path not in self._good))
        errors: list[ManifestError] = []
        good: dict[Path, tuple[Located, ...]] = {}
        taken: dict[str, Path] = {}
        for manifest in manifests:
            found = [*manifest.errors, *_clashes(manifest, taken)]
            errors += found
            located = self._good.get(manifest.path, ()) if found else manifest.endpoints
            good[manifest.path] = tuple(entry for entry in located if entry.endpoint.name not in taken)
            taken |= {entry.endpoint.name: manifest.path for entry in good[manifest.path]}
        self._good = good
        return tuple(sorted(errors, key=lambda error: (error.path, error.line)))

    @property
    def endpoints(self) -> tuple[ModelEndpoint, ...]:
        """The endpoints of every file's last valid content."""
        return tuple(entry.endpoint for located in self._good.values() for entry in located)


def _clashes(manifest: ManifestFile, taken: dict[str, Path]) -> Iterator[ManifestError]:
    """Yield an error for each endpoint whose name is used by another file or earlier in this one."""
    taken = dict(taken)
    for entry in manifest.endpoints:
        name = entry.endpoint.name
        if name in taken:
            message = f"metadata.name: {name!r} is already defined in {taken[name]}"
            yield ManifestError(manifest.path, entry.line, message)
        taken[name] = manifest.path
