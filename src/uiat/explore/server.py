"""Serve the page to this machine alone: loopback, a secret in the address, and no answer to pages from elsewhere."""

import base64
import binascii
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from uiat.errors import UserError
from uiat.explore.answers import Explorer, Question
from uiat.explore.page import describe, encode, render

HOST = "127.0.0.1"
LONGEST_WAIT = 60  # seconds for the models, which answer one question at a time
IDLE = 30  # seconds that a connection may say nothing
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Reply:
    """What goes back to the browser.

    Args:
        status: of HTTP.
        body: the text.
        kind: its content type.
        policy: the Content-Security-Policy; nothing at all is allowed by default.

    Example:
        >>> Reply(404, "no such page").kind
        'text/plain'
    """

    status: int
    body: str
    kind: str = "text/plain"
    policy: str = "default-src 'none'"


@dataclass(frozen=True)
class Site:
    """Everything between a request and its reply, apart from the connection.

    A name of another site may be made to lead to 127.0.0.1 (DNS rebinding), so the Host header must name this machine.
    A page of another site can send a request here, so it must carry the secret, the type of JSON and no other Origin.

    Args:
        explorer: what answers.
        port: where the server listens.
        token: the secret in the address of the page.

    Example:
        >>> import torch
        >>> from uiat import Linf
        >>> from uiat.data import ImageSet
        >>> images = ImageSet(torch.zeros(1, 1, 2, 2), torch.tensor([0]), ("a",), "example")
        >>> site = Site(Explorer([], images, Linf(0.1), torch.device("cpu")), 80)
        >>> site.reply("GET", "/", {"Host": "evil.example"}, b"").status
        403
    """

    explorer: Explorer
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    @property
    def longest(self) -> int:
        """Bytes of the longest question: a drawn image in base64, and some words."""
        c, h, w = self.explorer.images.image_shape
        return 2 * c * h * w + 1000

    def refusal(self, headers: Mapping[str, str]) -> str:
        """Return why a request is not from the page of this server; "" where it is."""
        hosts = [f"{name}:{self.port}" for name in (HOST, "localhost")]
        if headers.get("Host") not in hosts:
            return "this server answers to 127.0.0.1 and localhost alone"
        if headers.get("Origin") not in (None, *(f"http://{host}" for host in hosts)):
            return "another site may not ask"
        if headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none"):
            return "another site may not ask"
        return ""

    def reply(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Reply to a request: GET / is the page, POST /answer a question of it, and there is nothing else."""
        if why := self.refusal(headers):
            return Reply(403, why)
        try:
            parts = urlsplit(target)
        except ValueError:  # such as "//["
            return Reply(404, "there is no such page")
        if (method, parts.path) == ("GET", "/"):
            if not self._knows(parse_qs(parts.query).get("token", [""])[0]):
                return Reply(403, "the address lacks the token that `uiat explore` printed")
            page, policy = render(describe(self.explorer, form="live") | {"token": self.token}, connect=True)
            return Reply(200, page, "text/html; charset=utf-8", f"{policy}; frame-ancestors 'none'")
        if (method, parts.path) == ("POST", "/answer"):
            if not self._knows(headers.get("X-Uiat-Token", "")) or headers.get("Content-Type") != "application/json":
                return Reply(403, "the request lacks the token of the page")
            return self._answer(body)
        return Reply(404, "there is no such page")

    def _knows(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self.token.encode())

    def _answer(self, body: bytes) -> Reply:
        try:
            question = read_question(body)
            if not self._busy.acquire(timeout=LONGEST_WAIT):
                raise UserError("the models are busy with an earlier question")
            try:
                answer = self.explorer.answer(question)
            finally:
                self._busy.release()
        except UserError as error:
            return _json(400, {"error": str(error)})
        except Exception as error:  # of a model; the server goes on
            return _json(500, {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        shares = [[round(p, 4) for p in row] for row in answer.probabilities.tolist()]
        return _json(200, {"pixels": encode(answer.image), "probabilities": shares})


def _json(status: int, value: Any) -> Reply:
    return Reply(status, json.dumps(value), "application/json")


def read_question(body: bytes) -> Question:
    """Read a question from JSON; whatever else stands in it is refused.

    Raises:
        UserError: what is no JSON, or lacks a field, or has one of another type.

    Example:
        >>> read_question(b'{"source": 0, "label": 3, "position": -8, "image": 1}').image
        1
    """
    try:
        fields = json.loads(body)
    except ValueError:  # bytes that are no UTF-8 too
        raise UserError("the question is not JSON") from None
    if not isinstance(fields, dict) or set(fields) not in (
        {"source", "label", "position", "image"},
        {"source", "label", "position", "drawn"},
    ):
        raise UserError("a question has source, label, position, and image or drawn")
    for name, value in fields.items():
        if type(value) is not (str if name == "drawn" else int):
            raise UserError(f"{name} is of another type than it can be")
    if "drawn" not in fields:
        return Question(**fields)
    try:
        return Question(**fields | {"drawn": base64.b64decode(fields["drawn"], validate=True)})
    except (binascii.Error, ValueError):
        raise UserError("drawn is not base64") from None


class _Handler(BaseHTTPRequestHandler):
    """Reads requests and writes replies, each on a connection of its own; http.server asks for such a class."""

    server_version, sys_version, timeout = "uiat", "", IDLE
    site: Site

    def handle(self) -> None:
        with suppress(ConnectionError, TimeoutError):  # the browser has gone on
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are no news."""

    def do_GET(self) -> None:
        self._send(self.site.reply("GET", self.path, self._headers(), b""))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if why := self.site.refusal(self._headers()):
            return self._send(Reply(403, why))
        if not (length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= self.site.longest):
            return self._send(_json(413, {"error": f"a question has at most {self.site.longest} bytes"}))
        self._send(self.site.reply("POST", self.path, self._headers(), self.rfile.read(int(length))))

    def _headers(self) -> dict[str, str]:
        return {name.title(): self.headers[name] for name in self.headers}

    def _send(self, reply: Reply) -> None:
        content = reply.body.encode()
        self.send_response(reply.status)
        sent = {"Content-Type": reply.kind, "Content-Length": str(len(content)), "Connection": "close"}
        for name, value in {**sent, "Content-Security-Policy": reply.policy, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(explorer: Explorer, *, port: int = 0) -> Iterator[Site]:
    """Serve the page from a thread for as long as the context lasts.

    Args:
        explorer: what answers.
        port: 0 for one that is free.

    Raises:
        UserError: the port is taken or not allowed.
    """
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer((HOST, port), handler, bind_and_activate=False)
    try:
        TCPServer.server_bind(
            server
        )  # that of HTTPServer asks for the name of the address, which may go to the network
        server.server_activate()
    except (OSError, OverflowError) as error:
        server.server_close()
        raise UserError(f"cannot listen on port {port} of {HOST}: {error}") from None
    handler.site = site = Site(explorer, server.server_address[1])  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    with server:
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
