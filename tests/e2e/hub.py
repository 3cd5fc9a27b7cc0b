"""A double of the Hugging Face hub that runs in a pod; it needs nothing but the standard library.

It offers each folder of FOLDER as the model `local/<name>`. While the file OUTAGE is there, it answers 503 to
everything. tests/unit/hub_double.py has the errors of the hub; here the models are real.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path("/models")
OUTAGE = Path("/tmp/outage")
PORT = 8080
OWNER = "local"
# The same for all, because no model here has a history.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Answers what `huggingface_hub.snapshot_download` asks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        match self.path.partition("?")[0].strip("/").split("/"):
            case _ if OUTAGE.exists():
                self._send(503, b"The hub is away.")
            case ["api", "models", owner, name, "tree", _] if owner == OWNER and (FOLDER / name).is_dir():
                self._send_json(tree(name))
            case ["api", "models", owner, name, *_] if owner == OWNER and (FOLDER / name).is_dir():
                self._send_json(description(name))
            case [owner, name, "resolve", _, *path] if owner == OWNER:
                self._send_file(FOLDER / name / "/".join(path))
            case _:
                self._send(404, b"There is no such model.", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def log_request(self, code="-", size="-"):
        print(f"{time.strftime('%H:%M:%S')} {code} {self.command} {self.path}", file=sys.stderr, flush=True)

    def _send_json(self, document):
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _send_file(self, path):
        if not path.is_file():
            self._send(404, b"There is no such file.", {"X-Error-Code": "EntryNotFound"})
            return
        self._send(200, path.read_bytes(), {"X-Repo-Commit": COMMIT, "ETag": f'"{path.stat().st_size}"'})

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def description(name):
    """Return which commit the newest revision of a model is."""
    full_name = f"{OWNER}/{name}"
    siblings = [{"rfilename": file["path"]} for file in tree(name)]
    return {"id": full_name, "modelId": full_name, "sha": COMMIT, "siblings": siblings}


def tree(name):
    """Return the files of a model."""
    files = sorted(path for path in (FOLDER / name).rglob("*") if path.is_file())
    return [
        {"type": "file", "path": str(file.relative_to(FOLDER / name)), "size": size, "oid": str(size)}
        for file in files
        for size in [file.stat().st_size]
    ]


if __name__ == "__main__":
    FOLDER = Path(os.environ.get("FOLDER", FOLDER))
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
