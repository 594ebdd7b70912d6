"""The page's server, asked over the loopback."""

import concurrent.futures
import http.client
import json
import signal
import socket
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

import glscl_jax.search
from glscl_jax.errors import UserError
from glscl_jax.search import server
from tests.search.conftest import index_two
from tests.search.serving import serve

pytest.importorskip("starlette", reason="search serve needs starlette: make search installs it")
HOSTS = ["127.0.0.1", "localhost"]


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory, lance):
    folder = tmp_path_factory.mktemp("served")
    index_two(folder, checkpoint, "<b>.mp4")
    (folder / "secret.txt").write_text("not for you")
    return folder


@pytest.fixture(scope="module")
def index(folder):
    return glscl_jax.search.open(folder / "index")


@pytest.fixture(scope="module")
def port(index):
    port, stop = serve(server.application(index, hosts=HOSTS))
    yield port
    stop()


def ask(port, path, headers=None, host="127.0.0.1"):
    """Status, headers and body of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", f"{host}:{port}")
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.headers, body


def search(port, **given):
    status, _, body = ask(port, f"/api/search?{urllib.parse.urlencode(given)}")
    return status, json.loads(body)


def test_the_answer_is_the_index_s(port, index):
    status, told = search(port, q="a red circle", top=3)
    assert status == 200
    expected = index.query("a red circle", top=3).as_json()
    assert [hit["row"] for hit in told["hits"]] == [hit["row"] for hit in expected["hits"]]
    assert told["hits"][0]["weights"] == pytest.approx(expected["hits"][0]["weights"], abs=1e-6)
    assert search(port, like=told["hits"][0]["row"])[0] == 200
    assert [hit["video"] for hit in search(port, q="x", where="year = 2024")[1]["hits"]] == [
        "a.mp4"
    ] * 4
    schema = json.loads(ask(port, "/api/schema")[2])
    assert told.keys() == schema["properties"].keys()
    hit = schema["properties"]["hits"]["items"]["properties"]
    assert told["hits"][0].keys() == hit.keys()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "give q, a sentence, or like"),
        ({"q": "a", "like": "1"}, "give q, a sentence, or like"),
        ({"q": ""}, "the sentence is empty"),
        ({"q": "word " * 10_000}, None),
        ({"q": "a\x00b"}, "control character U+0000"),
        ({"q": "a", "top": "0"}, "top is '0': give a whole number, 1 to 1000"),
        ({"q": "a", "top": "ten"}, "top is 'ten'"),
        ({"q": "a", "top": "1e3"}, "top is '1e3'"),
        ({"q": "a", "where": "yeer > 3"}, "is no filter"),
        ({"q": "a", "where": "1; drop table windows"}, "is no filter"),
        ({"like": "-1"}, "like is '-1'"),
        ({"like": "77"}, "there is no window 77"),
    ],
)
def test_what_is_malformed_is_a_line(port, given, told):
    status, _, body = ask(port, f"/api/search?{urllib.parse.urlencode(given)}")
    assert 400 <= status < 500
    if told:
        assert told in json.loads(body)["error"]


def test_the_page_asks_nobody_else(port):
    status, headers, body = ask(port, "/")
    text = body.decode()
    assert status == 200
    assert "Search 5 windows" in text
    assert "year int64" in text
    assert "://" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_frames_and_ranges(port, folder):
    hits = search(port, q="x")[1]["hits"]
    row = next(hit["row"] for hit in hits if (hit["video"], hit["start"]) == ("a.mp4", 0))
    status, headers, body = ask(port, f"/frame/{row}?t=1.5")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert body[:2] == b"\xff\xd8"
    assert body != ask(port, f"/frame/{row}?t=3.5")[2]
    whole = (folder / "videos" / "a.mp4").read_bytes()
    assert ask(port, f"/video/{row}")[2] == whole
    status, headers, body = ask(port, f"/video/{row}", {"Range": "bytes=100-199"})
    assert (status, body) == (206, whole[100:200])
    assert headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
    assert ask(port, f"/video/{row}", {"Range": f"bytes={len(whole)}-"})[0] == 416


@pytest.mark.parametrize(
    "path",
    [
        "/video/99",
        "/video/../secret.txt",
        "/video/..%2fsecret.txt",
        "/video/%2e%2e%2f%2e%2e%2fsecret.txt",
        "/video/..%252fsecret.txt",
        "/frame/a.mp4",
        "/frame/0?t=nan",
        "/frame/0?t=-1",
        "/frame/0?t=9999",
        "/secret.txt",
        "/video/%00",
        "/video/\xbd",
    ],
)
def test_no_path_of_a_client_is_opened(port, path):
    status, _, body = ask(port, urllib.parse.quote(path, safe="/%?="))
    assert 400 <= status < 500
    assert b"not for you" not in body


def test_a_video_that_is_gone(port, folder):
    path = folder / "videos" / "<b>.mp4"
    hits = search(port, q="x")[1]["hits"]
    (row,) = [hit["row"] for hit in hits if hit["video"] == "<b>.mp4"]
    content = path.read_bytes()
    path.unlink()
    try:
        status, _, body = ask(port, f"/video/{row}")
        assert status == 404
        assert "is not there any more: index the folder again" in json.loads(body)["error"]
        path.symlink_to(folder / "secret.txt")
        assert ask(port, f"/video/{row}")[0] == 404
    finally:
        path.unlink()
        path.write_bytes(content)


def test_another_name_for_this_address_is_refused(port):
    assert ask(port, "/", host="elsewhere.example")[0] == 400


def test_fifty_at_once(port, index, monkeypatch):
    together = []
    queries = index.queries

    def counted(sentences, **how):
        together.append(len(sentences))
        return queries(sentences, **how)

    monkeypatch.setattr(index, "queries", counted)
    asked = [f"a red circle {number}" for number in range(50)]
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda q: search(port, q=q, top=1), asked))
    assert [(status, told["query"]) for status, told in found] == [(200, q) for q in asked]
    assert sum(together) == 50
    assert max(together) > 4


def test_a_client_that_leaves(port, folder):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as left:
            left.sendall(f"GET /video/0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            left.recv(10)
    assert search(port, q="x")[0] == 200


def test_a_token(index):
    port, stop = serve(server.application(index, token="open sesame"))
    try:
        for path in ("/", "/api/search?q=x", "/frame/0", "/video/0", "/?token=wrong"):
            status, _, body = ask(port, path)
            assert status == 403
            assert "token is missing or wrong" in json.loads(body)["error"]
        status, headers, _ = ask(port, "/?token=open%20sesame")
        assert status == 200
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert ask(port, "/api/search?q=x", {"Cookie": cookie})[0] == 200
    finally:
        stop()


def test_a_port_in_use(port):
    with pytest.raises(UserError, match=rf"--port {port}: Address already in use: give another"):
        server.open_socket("127.0.0.1", port)
    # Of documentation's addresses, which no machine has.
    with pytest.raises(UserError, match="give another --host, an address of this machine"):
        server.open_socket("192.0.2.1", 0)


def test_it_ends_cleanly(forks, folder):
    started = forks.start("glscl_jax.search", "serve", f"--index={folder / 'index'}", "--port=0")
    address = started.stdout.readline().split(" windows: ")[1].strip()
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{address}api/search?q=green", timeout=60).read()
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline
    started.send_signal(signal.SIGINT)
    assert started.wait() == 0
    assert started.stdout.read() == "stopped\n"
    assert "Traceback" not in started.finished.stderr
