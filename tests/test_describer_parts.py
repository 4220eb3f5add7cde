"""The parts of the describer that need no server: reading answers, back-off and breaker, the budget, the picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise
from math import inf
from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.describer.breaker import BreakerState, CircuitBreaker
from agent.describer.budget import HourlyBudget
from agent.describer.chat import _retry_after_s, server_name
from agent.describer.reading import AnswerReader, error_text
from agent.describer.request import reduced_jpeg
from config.errors import ConfigError, DescriberError
from config.loading import check_secrets, load, shown
from config.settings import DescriberImage

WORDS = ["Ein", " Mädchen", " füttert ☕", "\n\n", " 🦆", ".\r"]


def read(body: bytes, cuts: list[int] | None = None) -> tuple[str, AnswerReader]:
    reader = AnswerReader()
    edges = [0, *sorted(cuts or []), len(body)]
    words = [word for i, j in pairwise(edges) for word in reader.feed(body[i:j])]
    return "".join(words + reader.end()), reader


def events(line_end: str, *, done: bool = True, last_blank: bool = True) -> bytes:
    lines = [": keep-alive", "", "id: 7", "retry: 100"]
    for word in WORDS:
        chunk = json.dumps({"choices": [{"delta": {"content": word}}]}, ensure_ascii=False)
        head, tail = chunk.split(" ", 1)
        lines += ["event: message", f"data: {head}", f"data:{tail}", ""]  # JSON may be spread over lines
    lines += ['data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}', ""]
    lines += ['data: {"choices": [], "usage": {}}', ""] + (["data: [DONE]"] if done else [])
    return (line_end.join(lines) + (2 * line_end if last_blank else "")).encode()


@given(
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    done=st.booleans(),
    last_blank=st.booleans(),
    marked=st.booleans(),
    cuts=st.lists(st.integers(0, 700), max_size=30),
)
def test_words_are_the_same_wherever_the_stream_is_cut(
    line_end: str, done: bool, last_blank: bool, marked: bool, cuts: list[int]
) -> None:
    body = (b"\xef\xbb\xbf" if marked else b"") + events(line_end, done=done, last_blank=last_blank)
    text, reader = read(body, [min(cut, len(body)) for cut in cuts])
    assert text == "".join(WORDS)
    assert (reader.finish_reason, reader.done) == ("stop", done)


@given(st.binary(max_size=300), st.booleans())
def test_whatever_comes_is_words_or_a_describer_error(body: bytes, as_data: bool) -> None:
    try:
        text, _ = read(b"data: " + body + b"\n\n" if as_data else body)
    except DescriberError:
        return
    assert isinstance(text, str)


@pytest.mark.parametrize("content", ["Words.", [{"type": "text", "text": "Wor"}, {"type": "text", "text": "ds."}]])
def test_an_answer_that_is_one_object_is_read_as_well(content: object) -> None:
    body = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}, indent=1).encode()
    text, reader = read(b"\n" + body, [3, 9])
    assert (text, reader.finish_reason, reader.done) == ("Words.", "stop", True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'data: {"error": {"message": "out of memory"}}\n\n', "the server broke off: out of memory"),
        (b'data: {"error": "model not loaded"}\n\n', "the server broke off: model not loaded"),
        (b'data: {"object": "error", "message": "too long"}\n\n', "the server broke off: too long"),
        (b'error: {"message": "slot is gone"}\n\n', "the server broke off: slot is gone"),
        (b'event: error\ndata: {"detail": "nope"}\n\n', "the server broke off: nope"),
        (b'{"error": {"message": "no vision"}}', "the server broke off: no vision"),
        (b'data: {"choices": 3}\n\n', 'expected a chat completion, found {"choices": 3}'),
        (b"data: hello\n\n", "expected a chat completion, found 'hello'"),
        (b"<html>Sign in</html>", "expected a chat completion, found '<html>Sign in</html>'"),
        (b'{"choices": [', "expected a chat completion, found '{\"choices\": ['"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "expected a chat completion, found '" + "[" * 80 + "'"),
        (b"data: x" * 200_000, "the answer is longer than 1 MiB"),
    ],
)
def test_an_answer_that_has_failed_or_is_none_says_so(body: bytes, reason: str) -> None:
    with pytest.raises(DescriberError) as caught:
        read(body)
    assert str(caught.value) == reason


def test_an_error_is_told_on_one_short_line() -> None:
    assert error_text('{"error": {"message": "a\\u001b[31m\\nb"}}') == "a [31m b"
    assert len(error_text("x" * 1000)) == 200


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try_through() -> None:
    now = [0.0]
    breaker = CircuitBreaker(clock=lambda: now[0], random=Random(3))
    breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
        assert breaker.state is BreakerState.CLOSED
        now[0] += breaker.admit()
    breaker.failed()
    assert breaker.state is BreakerState.OPEN
    now[0] += breaker.admit()
    assert (breaker.admit(), breaker.state) == (0.0, BreakerState.HALF_OPEN)
    assert breaker.admit() == inf
    breaker.abandoned()
    assert breaker.admit() == 0.0
    breaker.failed()
    assert breaker.admit() > 0
    now[0] += breaker.admit()
    breaker.admit()
    breaker.succeeded()
    assert (breaker.admit(), breaker.state) == (0.0, BreakerState.CLOSED)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 30.0, 4000.0])), min_size=1, max_size=80))
def test_pauses_grow_within_limits_and_are_never_shorter_than_asked(failures: list[tuple[bool, float]]) -> None:
    now = [0.0]
    breaker = CircuitBreaker(clock=lambda: now[0], random=Random(1))
    for count, (permanent, at_least_s) in enumerate(failures):
        breaker.failed(permanent=permanent, at_least_s=at_least_s)
        pause_s = breaker.admit()
        floor = max(at_least_s, 900.0 * permanent, min(300.0, 2.0**count) / 2)
        assert floor - 1e-6 <= pause_s <= max(floor, 300.0) + 1e-6
        now[0] += pause_s
        breaker.admit()


@given(
    per_hour=st.integers(1, 30),
    cameras=st.integers(1, 5),
    wishes=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 900)), max_size=120),
)
def test_no_hour_has_more_requests_than_allowed_and_no_camera_less_than_its_share(
    per_hour: int, cameras: int, wishes: list[tuple[int, float]]
) -> None:
    now = [0.0]
    names = [f"cam{i}" for i in range(cameras)]
    budget = HourlyBudget(per_hour, names, clock=lambda: now[0])
    made: list[tuple[float, str]] = []
    for which, pause_s in wishes:
        now[0] += pause_s
        camera = names[which % cameras]
        last_hour = [name for at, name in made if at > now[0] - 3600]
        if budget.allows(camera):
            budget.spend(camera)
            made.append((now[0], camera))
            assert len(last_hour) < per_hour
        else:
            assert last_hour.count(camera) >= per_hour // (2 * cameras)
    assert budget.left == per_hour - len([at for at, _ in made if at > now[0] - 3600])


def test_a_restart_gives_no_new_budget(tmp_path: Path) -> None:
    now, file = [0.0], tmp_path / "requests.json"

    def started(per_hour: int = 3, *, set_back_s: float = 0.0) -> HourlyBudget:
        """A thousand seconds later, after a boot: the monotonic clock begins anew."""
        now[0] += 1000
        boot = now[0]
        clocks = {"clock": lambda: now[0] - boot, "wall": lambda: 1e6 + now[0] - set_back_s}
        return HourlyBudget(per_hour, ("a", "b"), file=file, **clocks)

    started().spend("a")  # at 1,000 s
    later = started()
    assert later.left == 2
    later.spend("a")  # at 2,000 s
    assert [started().left, started().left, started().left, started().left] == [1, 1, 2, 3]
    started(set_back_s=-1e5).spend("a")
    assert started(1).left == 0  # made in what is now the future, and so counted as made now
    file.write_text('{"a":')
    assert started().left == 3
    file.unlink()
    file.mkdir()  # can't be written: counted all the same
    blocked = started()
    blocked.spend("a")
    assert blocked.left == 2


def test_the_picture_is_reduced_and_never_enlarged() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[:, :80] = (255, 0, 0)
    for width, size in ((80, (45, 80)), (768, (90, 160))):
        jpeg = reduced_jpeg(image, DescriberImage(width=width))
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape[:2] == size
        assert picture[:, 5].mean(0).argmax() == 2  # red, in OpenCV's order


def test_a_retry_after_is_seconds_or_a_date() -> None:
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=120), usegmt=True)
    assert 100 < _retry_after_s(soon) <= 120
    found = [_retry_after_s(header) for header in ("7", "1e9", "-3", "soon", "nan", None)]
    assert found == [7.0, 3600.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("url: ftp://host/v1", "describer.url: expected the address of an OpenAI-compatible server, such as"),
        ("url: host:8000", "describer.url: expected the address of an OpenAI-compatible server, such as"),
        ("url: http://host:99999/v1", "describer.url: expected the address of an OpenAI-compatible server, such as"),
        ("url: http://a..b/v1", "describer.url: expected the address of an OpenAI-compatible server, such as"),
        ("url: http://me:hunter2@host/v1", "describer.url: expected no user or password in the address"),
        ("url: http://host/v1?token=hunter2", "describer.url: expected an address without ? and #"),
        ("url: http://host/v1/chat/completions", "describer.url: expected the address without /chat/completions"),
        ("key: hunter2", "describer.key: expected a reference to the secret, not the secret"),
        ("per_hour: 0", "describer.per_hour: "),
        ("fallback: local", "describer.fallback: "),
        ("image: {widht: 3}", "describer.image.widht: unknown key; did you mean width?"),
        ("prompt: {change: ''}", "describer.prompt.change: "),
        ("modell: x", "describer.modell: unknown key; did you mean model?"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_no_secret(tmp_path: Path, written: str, sentence: str) -> None:
    keys = {"url": "http://host/v1", "model": "m"}
    keys.pop(written.partition(":")[0], None)
    lines = ["cameras: {c: {source: 'scene:yard'}}", "describer:", f"  {written}"]
    file = tmp_path / "agent.yaml"
    file.write_text("\n".join([*lines, *(f"  {key}: {value}" for key, value in keys.items())]))
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value).startswith(f"{file}:3: {sentence}")
    assert "hunter2" not in str(caught.value)


def test_without_a_describer_no_http_client_is_loaded() -> None:
    code = "import sys, agent.daemon, agent.doctor; print('httpx2' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n"


def test_the_key_is_a_reference_and_the_slash_at_the_end_is_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        "cameras: {c: {source: 'scene:yard'}}\n"
        "describer: {url: 'https://[::1]:8443/v1/', model: m, key: 'env:NO_SUCH_KEY'}\n"
    )
    settings = load(file, {})
    assert settings.describer is not None
    assert settings.describer.url == "https://[::1]:8443/v1"
    assert server_name(settings.describer.url) == "[::1]:8443"
    assert shown(settings)["describer"]["key"] == "env:NO_SUCH_KEY"
    with pytest.raises(ConfigError, match=r"describer\.key: env:NO_SUCH_KEY"):
        check_secrets(settings)
