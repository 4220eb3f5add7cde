"""Cameras and a vision server in another process: what is asked, what is answered, and what happens when it isn't."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from mqtt_world import until
from vision_server import MODEL, Remote, vision_server

from agent.describer.breaker import CircuitBreaker
from agent.describer.chat import ChatServer
from agent.describer.request import reduced_jpeg
from agent.describer.server import VisionServer
from agent.describing import DescribingThread, Description, Look
from config.errors import ConfigError, DescriberError
from config.settings import Describer, DescriberImage

FEATURES = np.zeros((4, 2), np.float32)
PICTURE = reduced_jpeg(np.full((36, 64, 3), (200, 30, 30), np.uint8), DescriberImage())
EARLIER = reduced_jpeg(np.full((36, 64, 3), (30, 30, 200), np.uint8), DescriberImage())
LOOK = Look(FEATURES, PICTURE)


@pytest.fixture(scope="module")
def process() -> Iterator[Remote]:
    with vision_server() as started:
        yield started


@pytest.fixture
def remote(process: Remote) -> Remote:
    process.does("good")
    return process


class Clock:
    """Time that passes, and that a test can move forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


Open = Callable[..., VisionServer]


@pytest.fixture
def opened(remote: Remote) -> Iterator[Open]:
    made: list[VisionServer] = []

    def open_server(
        clock: Callable[[], float] = time.monotonic,
        cameras: tuple[str, ...] = ("a",),
        state: Path | None = None,
        **settings: Any,
    ) -> VisionServer:
        described = Describer.model_validate({"url": remote.url, "model": MODEL, "timeout_s": 20.0, **settings})
        breaker = CircuitBreaker(first_s=0.05, clock=clock, random=Random(1))
        made.append(VisionServer(described, cameras, state=state, clock=clock, breaker=breaker))
        return made[-1]

    yield open_server
    for server in made:
        server.close()
        assert not server._thread.is_alive()


def said(server: VisionServer, look: Look = LOOK, camera: str = "a") -> str:
    return "".join(server.describe(camera, look))


def refused(server: VisionServer, look: Look = LOOK, camera: str = "a") -> str:
    with pytest.raises(DescriberError) as caught:
        said(server, look, camera)
    return str(caught.value).replace(server.name, "HOST")


def test_a_change_is_asked_with_both_pictures_the_earlier_first(remote: Remote, opened: Open) -> None:
    server = opened(max_tokens=77, temperature=0.5)
    before = len(remote.asked)
    assert said(server, Look(FEATURES, PICTURE, True, EARLIER)) == f"Words {before + 1} from the server, café ☕."
    assert said(server) == f"Words {before + 2} from the server, café ☕."
    change, first = remote.asked[before:]
    assert [picture.mean((0, 1)).argmax() for picture in change.pictures] == [2, 0]
    assert (len(first.pictures), first.text) == (1, Describer(url=remote.url, model=MODEL).prompt.describe)
    assert change.text == Describer(url=remote.url, model=MODEL).prompt.change
    body = {key: value for key, value in change.body.items() if key != "messages"}
    assert body == {"model": MODEL, "stream": True, "max_tokens": 77, "temperature": 0.5}
    assert change.authorization is None


def test_one_picture_only_for_servers_that_take_no_more(remote: Remote, opened: Open) -> None:
    said(opened(image={"previous": False}), Look(FEATURES, PICTURE, True, EARLIER))
    (picture,) = remote.asked[-1].pictures
    assert picture.mean((0, 1)).argmax() == 0


@pytest.mark.parametrize("mode", ["slow", "drip", "plain"])
def test_words_come_whole_however_they_are_sent(remote: Remote, opened: Open, mode: str) -> None:
    remote.does(mode)
    assert said(opened()).endswith("from the server, café ☕.")


def test_words_come_while_the_answer_is_being_made(remote: Remote, opened: Open) -> None:
    remote.does("hang_midway")
    pieces = opened().describe("a", LOOK)
    assert next(pieces) == "Half a"
    pieces.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mode", "words", "reason"),
    [
        ("cut", "Half a", "HOST: the connection broke"),
        ("unfinished", "Half a", "HOST: the answer ends in the middle"),
        ("long", "On and", "HOST: the answer is longer than describer.max_tokens"),
        ("empty", "", "HOST: an answer without words (stop)"),
        ("denied", "", "HOST: HTTP 401 Unauthorized: invalid key Bearer ***"),
        ("moved", "", "HOST: HTTP 307 Temporary Redirect"),
        ("away", "", "HOST: HTTP 503 Service Unavailable: loading model"),
    ],
)
def test_what_is_missing_is_said_and_not_asked_again(
    remote: Remote, opened: Open, monkeypatch: pytest.MonkeyPatch, mode: str, words: str, reason: str
) -> None:
    monkeypatch.setenv("KEY", "sesame")
    server = opened(key="env:KEY")
    remote.does(mode)
    before = len(remote.asked)
    pieces = []
    with pytest.raises(DescriberError) as caught:
        for piece in server.describe("a", LOOK):
            pieces.append(piece)
    assert "".join(pieces) == words
    assert str(caught.value).replace(server.name, "HOST").startswith(reason)
    assert len(remote.asked) == before + 1
    assert remote.asked[-1].authorization == "Bearer sesame"


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("broken", "HOST: HTTP 500 Internal Server Error: internal error"),
        ("breaks", "HOST: the server broke off: CUDA out of memory"),
        ("page", "HOST: expected a chat completion, found '<html><body>Welcome to nginx!</body></html>'"),
        ("garbage", "HOST: the connection broke"),
    ],
)
def test_a_server_that_fails_three_times_is_left_alone(remote: Remote, opened: Open, mode: str, reason: str) -> None:
    clock = Clock()
    server = opened(clock)
    remote.does(mode)
    before = len(remote.asked)
    assert refused(server).startswith(reason)
    assert refused(server).startswith(reason)
    assert len(remote.asked) == before + 3
    assert (server.status.breaker, server.status.failures) == ("open", 3)
    assert server.trouble is not None and server.trouble.startswith("describer: ")
    remote.does("good")
    clock.ahead_s += 300
    assert said(server).endswith("☕.")
    assert (server.status.breaker, server.trouble) == ("closed", None)


def test_a_failure_or_two_cost_time_and_no_words(remote: Remote, opened: Open) -> None:
    remote.does(["busy", "broken", "good"])
    server = opened()
    assert said(server).endswith("☕.")
    assert (server.status.requests, server.status.failures) == (3, 2)


def test_a_request_that_can_never_succeed_is_not_repeated_for_a_quarter_of_an_hour(
    remote: Remote, opened: Open
) -> None:
    clock = Clock()
    server = opened(clock)
    remote.does("denied")
    before = len(remote.asked)
    refused(server)
    clock.ahead_s += 800
    refused(server)
    assert len(remote.asked) == before + 1
    clock.ahead_s += 200
    refused(server)
    assert len(remote.asked) == before + 2


def test_a_server_that_is_not_there_is_named_with_the_reason(opened: Open, remote: Remote) -> None:
    server = opened(url="http://127.0.0.1:9/v1")
    assert refused(server) == "HOST: connection refused"
    assert server.name == "127.0.0.1:9"


@pytest.mark.parametrize("mode", ["hang", "hang_midway"])
def test_no_answer_within_the_time_is_given_up(remote: Remote, opened: Open, mode: str) -> None:
    server = opened(timeout_s=1.0)
    remote.does(mode)
    assert refused(server) == "HOST: no whole answer within 1 s"
    assert server.status.failures == 1


@pytest.mark.parametrize("mode", ["hang", "hang_midway", "away"])
def test_closing_ends_whatever_is_waited_for(remote: Remote, opened: Open, mode: str) -> None:
    others = set(threading.enumerate())
    server = opened(timeout_s=600.0)
    answers: list[Description] = []
    remote.does(["broken", mode])  # so that some wait for the pause between two tries
    describing = DescribingThread(interrupt=server.close)
    before = len(remote.asked)
    describing.wish("a", lambda look: server.describe("a", look), LOOK, answers.append)
    while len(remote.asked) == before:
        time.sleep(0.01)
    describing.close(60)
    text = {"": "no text", "Half a": "text cut short"}[answers[0].text]
    assert [answer.note for answer in answers] == [f"{text}: the agent was stopping"]
    until(lambda: not set(threading.enumerate()) - others, "its threads to end")
    with pytest.raises(DescriberError, match="the agent was stopping"):
        said(server)


def test_the_budget_of_an_hour_is_kept_and_told(remote: Remote, opened: Open) -> None:
    clock = Clock()
    server = opened(clock, cameras=("a", "b"), per_hour=4)
    before = len(remote.asked)
    for _ in range(3):
        said(server, camera="a")
    assert refused(server, camera="a").startswith("the other cameras' share of the budget of 4 requests an hour")
    said(server, camera="b")
    for camera in "ab":
        assert refused(server, camera=camera).startswith("the budget of 4 requests an hour is used up")
    assert server.trouble == "describer: the budget of 4 requests an hour is used up (describer.per_hour)"
    assert len(remote.asked) == before + 4
    clock.ahead_s += 3600
    said(server, camera="a")


def test_the_budget_outlives_a_restart(remote: Remote, opened: Open, tmp_path: Path) -> None:
    said(opened(per_hour=1, state=tmp_path))
    before = len(remote.asked)
    again = opened(per_hour=1, state=tmp_path)
    assert refused(again).startswith("the budget of 1 requests an hour is used up")
    assert (again.status.left_this_hour, len(remote.asked)) == (0, before)


def test_one_slow_server_serves_many_cameras_each_in_its_turn(remote: Remote, opened: Open) -> None:
    cameras = [f"cam{i}" for i in range(6)]
    server = opened(cameras=tuple(cameras), per_hour=100)
    remote.does("slow")
    before = len(remote.asked)
    answers: dict[str, list[Description]] = {camera: [] for camera in cameras}
    with DescribingThread(interrupt=server.close) as describing:
        for camera in [*cameras, *cameras[3:]]:  # three have newer news while they wait
            describing.wish(camera, lambda look, c=camera: server.describe(c, look), LOOK, answers[camera].append)  # type: ignore[misc]
        assert describing.finish(60)
    assert len(remote.asked) == before + 6
    assert all(answer[-1].text and answer[-1].note is None for answer in answers.values())


def test_several_are_asked_at_a_time_where_the_server_can(remote: Remote, opened: Open) -> None:
    cameras = ("a", "b", "c")
    server = opened(cameras=cameras)
    remote.does("slow")
    answers: list[Description] = []
    with DescribingThread(parallel=3, interrupt=server.close) as describing:
        for camera in cameras:
            describing.wish(camera, lambda look, c=camera: server.describe(c, look), LOOK, answers.append)  # type: ignore[misc]
        assert describing.finish(60)
    assert len(answers) == 3 and remote.most_busy >= 2


def test_tls_is_checked(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = tmp_path / "server.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {pem} -out {tmp_path}/certificate.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "certificate.pem").read_text())
    with vision_server(pem) as secure:
        url = secure.url.replace("http:", "https:")
        assert refused(opened(url=url)).startswith("HOST: its certificate is not trusted: self")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert said(opened(url=url)).endswith("from the server, café ☕.")


def test_what_models_a_server_has(remote: Remote) -> None:
    async def models(url: str) -> list[str] | None:
        async with ChatServer(url, "sesame") as server:
            return await server.models()

    assert asyncio.run(models(remote.url)) == [MODEL]
    assert asyncio.run(models(remote.url.removesuffix("/v1"))) is None
    with pytest.raises(DescriberError, match="connection refused"):
        asyncio.run(models("http://127.0.0.1:9/v1"))
    with pytest.raises(ConfigError, match=r"describer\.key"):
        ChatServer(remote.url, "two\nlines")
    with pytest.raises(ConfigError, match=r"describer\.url"):
        ChatServer("http://host/" + "x" * 70_000)
