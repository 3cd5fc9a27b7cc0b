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

# Far more than manifests need. A file with more would keep the command busy or fill the memory.
MOST_VALUES: Final = 200_000
MOST_BYTES: Final = 8 * 2**20


@dataclass(frozen=True)
class ManifestError:
    """One error in a file, and its line (from 1)."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class _UnreadableError(Exception):
    """A part of a document that is valid YAML and is not read, with its line."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


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
            # Reading a pipe would wait for another program.
            paths += sorted(
                path for path in argument.iterdir() if path.suffix in SUFFIXES and not path.is_fifo()
            )
        else:
            paths.append(argument)
    return list(dict.fromkeys(paths))


def read_manifest(path: Path) -> ManifestFile:
    """Read one file; that it cannot be read is an error of the result too."""
    text = _read_text(path)
    if isinstance(text, ManifestFile):
        return text
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
    except _UnreadableError as error:
        errors.append(ManifestError(path, error.line, str(error)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        errors.append(ManifestError(path, line, f"is not valid YAML: {error.problem}"))
    except (yaml.YAMLError, ValueError) as error:
        # The cause is a forbidden character, or a scalar such as an impossible date.
        errors.append(ManifestError(path, 1, f"is not valid YAML: {' '.join(str(error).split())}"))
    except RecursionError:
        errors.append(ManifestError(path, 1, "is nested too deeply"))
    return ManifestFile(path, tuple(endpoints), tuple(errors))


def _read_text(path: Path) -> str | ManifestFile:
    """Return the text of a file, or the result of `read_manifest` if it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            return _only_error(path, 1, f"is larger than {MOST_BYTES // 2**20} MiB; split it")
        return content.decode("utf-8")
    except OSError as error:
        return _only_error(path, 1, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return _only_error(path, 1, f"is not UTF-8: {error.reason} at byte {error.start}")


def _only_error(path: Path, line: int, message: str) -> ManifestFile:
    return ManifestFile(path, (), (ManifestError(path, line, message),))


def _documents(text: str) -> Iterator[tuple[yaml.Node, Any]]:
    """Yield each document as YAML's tree, which has line numbers, and as plain values."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = cast(yaml.Node, loader.get_node())
            _count_values(node, {})
            document = loader.construct_document(node)
            if document is not None:
                yield node, document
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return how many values `node` stands for, an alias being as many as what it repeats; refuse some nodes.

    `counted` has the numbers of the nodes that were visited, so that an alias costs no time here.
    """
    known = counted.get(id(node))
    if known == 0:
        raise _UnreadableError(node, "contains itself by an alias")
    if known is not None:
        return known
    counted[id(node)] = 0
    count = 1
    if isinstance(node, yaml.SequenceNode):
        count += sum(_count_values(item, counted) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        _refuse_duplicate_keys(node)
        count += sum(_count_values(each, counted) for pair in node.value for each in pair)
    if count > MOST_VALUES:
        raise _UnreadableError(
            node, f"has more than {MOST_VALUES} values, counting what aliases repeat; write less, or split it"
        )
    counted[id(node)] = count
    return count


def _refuse_duplicate_keys(node: yaml.MappingNode) -> None:
    # PyYAML silently keeps the last of two equal keys.
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)


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
