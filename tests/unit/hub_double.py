"""A double of the Hugging Face hub, small enough to read: tests must not depend on the real one.

It answers what `huggingface_hub.snapshot_download` asks: which commit a revision is, which files
that has, and what is in each. It notes the paths that it was asked for.
"""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.unit.http_double import serving

REPOSITORY = "org/name"
# Of this one, the hub says that it is asked too often.
BUSY = "org/busy"
# This one is given to whoever has the token.
GATED = "org/gated"
TOKEN = "hf_of_team_a"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = {"main": COMMIT, "v1": COMMIT, COMMIT: COMMIT}

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "onnx/config.json": b"{}",
    "original/consolidated.00.safetensors": b"weights of another program",
    "consolidated.safetensors": b"weights of another program",
    "source.spm": b"pieces",
    "bpe.codes": b"merges",
    "pytorch_model.bin": b"pickled weights",
    "modeling.py": b"import os",
    "README.md": b"# Name",
    "tokenizer.model": b"pieces",
    "vocab.txt": b"words",
}


def _object_id(content):
    """Return what git calls the content."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def _description(repository):
    siblings = [{"rfilename": name} for name in FILES]
    return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}


def _tree():
    return [
        {"type": "file", "path": name, "size": len(content), "oid": _object_id(content)}
        for name, content in FILES.items()
    ]


class Handler(BaseHTTPRequestHandler):
    """Answers like the hub, errors with its X-Error-Code header included."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        match self.path.partition("?")[0].strip("/").split("/"):
            case ["api", "models", owner, name, "revision" | "tree" as question, revision]:
                self._answer_about(f"{owner}/{name}", revision, question)
            case ["api", "models", owner, name]:
                self._answer_about(f"{owner}/{name}", "main", "revision")
            case [owner, name, "resolve", _, *path]:
                self._send_file(f"{owner}/{name}", "/".join(path))

    do_HEAD = do_GET

    def log_message(self, *arguments):
        """Keep quiet."""

    def _answer_about(self, repository, revision, question):
        if repository == BUSY:
            self._send(429, b"slow down", {"Retry-After": "0"})
        elif repository == GATED and not self._has_token():
            self._refuse("GatedRepo", "Access to this repository is restricted", 401)
        elif repository not in (REPOSITORY, GATED):
            self._refuse("RepoNotFound", "Repository not found")
        elif revision not in REVISIONS:
            self._refuse("RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            answer = _description(repository) if question == "revision" else _tree()
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _has_token(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _send_file(self, repository, name):
        if repository == GATED and not self._has_token():
            self._refuse("GatedRepo", "Access to this repository is restricted", 401)
            return
        content = FILES[name]
        self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{_object_id(content)}"'})

    def _refuse(self, code, message, status=404):
        headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_hub():
    """Yield the server's URL and the list of paths that it was asked for."""
    asked = []
    with serving(Handler, asked=asked) as url:
        yield url, asked
