"""Put replicas back that one of Ray's configurations leaves out by mistake.

A controller of Serve that has been started again, as after the loss of Ray's head, may list all applications
without any replica for a part of a second, while all of them answer (seen with Ray 2.60.0). The gateway then
has none either, which is how such a configuration is told from others. Then the backends get the servers of
the configuration before. HAProxy checks servers itself, and takes out those that are really gone.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

_FILE: Final = "known-replicas.json"

# The backend of an application that HTTP requests reach, its servers, and the one behind them.
APPLICATION: Final = re.compile(r"^backend (http-\S+)\n((?: .*\n|\n)*)", re.MULTILINE)
REPLICA: Final = re.compile(r"^ +server (\S+) (\S+) (?!.*\bbackup$).*$", re.MULTILINE)
FALLBACK: Final = re.compile(r"^ +server \S+ \S+ check backup$", re.MULTILINE)

GATEWAY: Final = "http-gateway"


def with_known_replicas(config: str, folder: Path) -> str:
    """Return `config`; if its gateway has no replica, with those of the last one whose gateway had one.

    They are kept in `folder`, which is that of one HAProxy.
    """
    replicas = {name: _lines(body) for name, body in APPLICATION.findall(config)}
    path = folder / _FILE
    if replicas.get(GATEWAY):
        _keep(replicas, path)
        return config
    known = _read(path)

    def completed(found: re.Match[str]) -> str:
        name, body = found.groups()
        lines = "" if replicas[name] else "".join(f"{line}\n" for line in known.get(name, ()))
        return f"backend {name}\n{with_servers(body, lines)}"

    return APPLICATION.sub(completed, config)


def with_servers(body: str, lines: str) -> str:
    """Return the body of a backend with further servers.

    HAProxy takes the first server with `backup` that is up, so Ray's own proxy stays the last one.
    """
    fallback = FALLBACK.search(body)
    place = fallback.start() if fallback else len(body)
    return body[:place] + lines + body[place:]


def _lines(body: str) -> list[str]:
    return [found[0] for found in REPLICA.finditer(body)]


def _keep(replicas: dict[str, list[str]], path: Path) -> None:
    # Without the file, the next configuration is taken as it is.
    with suppress(OSError):
        path.write_text(json.dumps(replicas), encoding="utf-8")


def _read(path: Path) -> dict[str, list[str]]:
    try:
        known: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known
