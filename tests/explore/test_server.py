"""The server answers its own page, asked by urllib, and nobody else."""

import base64
import json
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from uiat.errors import UserError
from uiat.explore import Site, serving
from uiat.explore.server import read_question

GOOD = {"source": 0, "label": 0, "position": 8, "image": 1}


def ask(site, question, **headers):
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    usual = {"Content-Type": "application/json", "X-Uiat-Token": site.token}
    request = Request(f"http://127.0.0.1:{site.port}/answer", body, usual | headers)
    try:
        with urlopen(request, timeout=20) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        return error.code, error.read().decode()


def test_a_page_and_its_answers(explorer):
    with serving(explorer) as site:
        with urlopen(site.address, timeout=20) as reply:
            page, headers = reply.read().decode(), reply.headers
        assert site.token in page
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in headers["Content-Security-Policy"]
        status, answer = ask(site, GOOD)
        assert status == 200
        assert len(base64.b64decode(answer["pixels"])) == 9
        assert [round(sum(row), 2) for row in answer["probabilities"]] == [1, 1]
        status, refused = ask(site, GOOD | {"label": 2})
        assert (status, json.loads(refused)) == (400, {"error": "label must be from 0 to 1, not 2"})
        assert ask(site, b"x" * 2000)[0] == 413
        with pytest.raises(UserError, match=f"cannot listen on port {site.port}"), serving(explorer, port=site.port):
            pass
    with pytest.raises(OSError, match="refused"):
        urlopen(site.address, timeout=5)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Uiat-Token": "guessed"},
        {"Content-Type": "text/plain"},
    ],
    ids=str,
)
def test_others_are_refused(explorer, headers):
    site = Site(explorer, 80)
    own = {"Host": "127.0.0.1:80", "X-Uiat-Token": site.token, "Content-Type": "application/json"}
    body = json.dumps(GOOD).encode()
    assert site.reply("POST", "/answer", own, body).status == 200
    assert site.reply("POST", "/answer", own | headers, body).status == 403


def test_only_two_addresses_are_there(explorer):
    site = Site(explorer, 80)
    own = {"Host": "localhost:80"}
    assert site.reply("GET", f"/?token={site.token}", own, b"").status == 200
    assert site.reply("GET", "/?token=guessed", own, b"").status == 403
    assert site.reply("GET", "/../etc/passwd", own, b"").status == 404
    assert site.reply("GET", "//[", own, b"").status == 404  # no address at all


def test_a_length_that_is_none_is_refused(explorer):
    with serving(explorer) as site:
        connection = HTTPConnection("127.0.0.1", site.port, timeout=20)
        connection.putrequest("POST", "/answer")
        connection.putheader("Content-Length", "-1")
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        json.dumps(GOOD | {"drawn": ""}).encode(),
        json.dumps(GOOD | {"label": True}).encode(),
        json.dumps(GOOD | {"position": 1e999}).encode(),
        b'{"source": 0, "label": 0, "position": 0, "drawn": "*"}',
    ],
)
def test_a_question_of_another_form_is_one_line(body):
    with pytest.raises(UserError) as caught:
        read_question(body)
    assert "\n" not in str(caught.value)


def test_a_fault_of_a_model_is_one_line(explorer):
    site = Site(explorer, 80)
    own = {"Host": "127.0.0.1:80", "X-Uiat-Token": site.token, "Content-Type": "application/json"}
    explorer.subjects[1].model.forward = lambda x: 1 / 0
    reply = site.reply("POST", "/answer", own, json.dumps(GOOD).encode())
    assert (reply.status, json.loads(reply.body)) == (500, {"error": "ZeroDivisionError: division by zero"})
