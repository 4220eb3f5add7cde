"""Importing from a hub: a server process of its own, connections that break, files that are not what they should be."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from engines_checkpoint import Size, split_into_shards, write_checkpoint

from config.errors import ModelError, SourceError, StorageError
from engines import store
from engines.importing import import_model
from engines.manifest import load_model, sha256

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from agent.cli import command; command()"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model with more in it than an import needs."""
    folder = tmp_path / "repository"
    write_checkpoint(folder, Size(dtype="F32", inner=512, layers=4))
    for name in (
        "README.md",
        "pytorch_model.bin",
        "training_args.bin",
        "modeling.py",
        "onnx/model.onnx",
        "onnx/config.json",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not for us")
    return folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLWATCH_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "models"


class Hub:
    """A running server, and what it was asked."""

    def __init__(self, log: Path, port: int) -> None:
        self.log, self.port = log, port

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def ranges(self, file: str) -> list[int]:
        """First bytes asked for of a large file, in order."""
        asked = [request["range"] for request in self.requests if request["path"] == f"/cdn/{file}"]
        return [int(first[6:-1]) if first else 0 for first in asked]


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a hub that behaves as told; a second one takes the place of the first."""
    with contextlib.ExitStack() as stack:
        known: dict[str, Any] = {}

        def start(**options: Any) -> Hub:
            if known:
                known["process"].kill()
                known["process"].wait()
                options["port"] = known["port"]
            log = tmp_path / f"hub-{len(list(tmp_path.glob('hub-*')))}.log"
            call = [sys.executable, str(Path(__file__).with_name("hub_server.py")), str(repository), str(log)]
            process = stack.enter_context(
                subprocess.Popen([*call, json.dumps(options)], stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            known.update(process=process, port=int(process.stdout.readline()))
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{known['port']}")
            return Hub(log, known["port"])

        yield start


@pytest.mark.timeout(300)
def test_every_command_of_the_page_runs(hub: Any, repository: Path, models: Path) -> None:
    """But for pip: what the page tells a user to type, typed."""
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("stillwatch ")]
    assert len(commands) >= 4
    hub(model="HuggingFaceTB/SmolVLM-256M-Instruct")
    here = repository.parent
    repository.rename(here / "SmolVLM-256M-Instruct")
    (here / "repository").symlink_to("SmolVLM-256M-Instruct")
    cv2.imwrite(str(here / "street.png"), np.full((90, 160, 3), 90, np.uint8))
    for _, *arguments in commands:
        call = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(call, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
    assert store.names() == ["SmolVLM-256M-Instruct", "smol"]


def test_only_what_is_needed_is_fetched_and_verified(hub: Any, repository: Path, models: Path) -> None:
    server = hub()
    imported = import_model("owner/tiny", verify=False)
    assert imported.report["source"] == {
        "hub": f"http://127.0.0.1:{server.port}",
        "model": "owner/tiny",
        "commit": COMMIT,
    }
    fetched = {request["path"].rsplit("/", 1)[1] for request in server.requests if COMMIT in request["path"]}
    assert fetched == {"config.json", "preprocessor_config.json", "tokenizer.json", WEIGHTS}
    assert sha256(imported.model.folder / "tokenizer.json") == sha256(repository / "tokenizer.json")
    assert [folder.name for folder in models.iterdir()] == ["tiny"]


def test_shards_are_fetched(hub: Any, repository: Path, models: Path) -> None:
    split_into_shards(repository, 3)
    server = hub()
    import_model("owner/tiny", revision=COMMIT, verify=False)
    assert len([request for request in server.requests if request["path"].startswith("/cdn/")]) == 3
    assert load_model(models / "tiny")


def test_a_connection_that_is_cut_goes_on_where_it_stopped(hub: Any, repository: Path, models: Path) -> None:
    server = hub(cuts=[100_000, 50_000])
    import_model("owner/tiny", verify=False)
    assert server.ranges(WEIGHTS) == [0, 100_000, 150_000]
    load_model(models / "tiny")


def test_a_server_without_ranges_is_asked_for_everything_again(hub: Any, repository: Path, models: Path) -> None:
    server = hub(cuts=[100_000], ranges=False)
    import_model("owner/tiny", verify=False)
    assert server.ranges(WEIGHTS) == [0, 100_000]
    load_model(models / "tiny")


def test_a_killed_import_goes_on_where_it_stopped(hub: Any, repository: Path, models: Path) -> None:
    hub(chunk_delay_s=0.5)
    call = [sys.executable, "-c", WITHOUT_TORCH, "model", "import", "owner/tiny"]
    process = subprocess.Popen(call, cwd=ROOT, stderr=subprocess.DEVNULL)
    part, deadline = models / ".download-tiny" / f"{WEIGHTS}.part", time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    have = part.stat().st_size
    assert 0 < have < (repository / WEIGHTS).stat().st_size
    assert store.unfinished_downloads().keys() == {"tiny"}
    server = hub()
    import_model("owner/tiny", verify=False)
    assert server.ranges(WEIGHTS) == [have]
    assert [request["path"] for request in server.requests if "json" in request["path"]] == []
    assert [folder.name for folder in models.iterdir()] == ["tiny"]


def test_what_an_earlier_download_left_damaged_is_fetched_again(hub: Any, repository: Path, models: Path) -> None:
    hub(cuts=[200_000, *[0] * 20])
    with pytest.raises(SourceError):
        import_model("owner/tiny", verify=False)
    kept = models / ".download-tiny" / "tokenizer.json"
    kept.write_bytes(bytes(kept.stat().st_size))
    hub()
    folder = import_model("owner/tiny", verify=False).model.folder
    assert sha256(folder / "tokenizer.json") == sha256(repository / "tokenizer.json")


def test_a_disk_that_is_full_in_the_middle_of_a_download(hub: Any, repository: Path, models: Path) -> None:
    hub()
    size = (repository / WEIGHTS).stat().st_size // 2
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "model", "import", "owner/tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    assert done.returncode == StorageError.exit_code, done.stderr
    assert "the disk is full, or a limit on file size is reached" in done.stderr
    assert list(models.iterdir()) == []


def test_a_download_that_gives_up_is_kept_and_can_be_removed(hub: Any, repository: Path, models: Path) -> None:
    hub(cuts=[200_000, *[0] * 20])
    call = [sys.executable, "-c", WITHOUT_TORCH, "model"]
    done = subprocess.run([*call, "import", "owner/tiny"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == SourceError.exit_code, done.stderr
    assert "broke off after 0.2 of " in done.stderr
    assert "give the same command again to go on" in done.stderr
    assert store.names() == []
    listed = subprocess.run([*call, "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tiny: 0." in listed.stderr and "unfinished download" in listed.stderr
    store.remove("tiny")
    assert list(models.iterdir()) == []


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
def test_a_file_that_is_not_what_the_hub_lists_is_refused(hub: Any, models: Path, file: str) -> None:
    hub(damage=file)
    with pytest.raises(ModelError, match=rf"{file}: found hash \w+, expected \w+ by the hub's list"):
        import_model("owner/tiny", verify=False)
    assert list(models.iterdir()) == []


def test_a_model_that_can_not_be_used_is_refused_before_its_weights_are_fetched(
    hub: Any, repository: Path, models: Path
) -> None:
    config = json.loads((repository / "config.json").read_text())
    (repository / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    server = hub()
    with pytest.raises(ModelError, match="found 'llava'"):
        import_model("owner/tiny")
    assert server.ranges(WEIGHTS) == []
    assert list(models.iterdir()) == []


def test_pickles_are_no_weights(hub: Any, repository: Path, models: Path) -> None:
    (repository / WEIGHTS).unlink()
    server = hub()
    with pytest.raises(ModelError, match=r"no model\.safetensors and no shards of it, but .*pytorch_model\.bin"):
        import_model("owner/tiny")
    assert len(server.requests) == 1


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: Any, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = hub(token="secret")
    with pytest.raises(ModelError, match=r"HTTP 401: .*accept its terms on the hub, and set HF_TOKEN") as caught:
        import_model("owner/tiny")
    monkeypatch.setenv("HF_TOKEN", "secret")
    import_model("owner/tiny", verify=False)
    assert {r["authorization"] for r in server.requests if r["host"] == "localhost"} == {None}
    assert "secret" not in str(caught.value) + (models / "tiny" / "verification.json").read_text()


@pytest.mark.parametrize("model", ["owner/other", "owner/tiny@x"])
def test_a_model_that_is_not_there(hub: Any, models: Path, model: str) -> None:
    hub()
    with pytest.raises(ModelError, match=r"no such model|found no such folder"):
        import_model(model)
    assert not models.exists() or list(models.iterdir()) == []


def test_a_hub_that_can_not_be_reached(hub: Any, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(down=503)
    with pytest.raises(SourceError, match="HTTP 503"):
        import_model("owner/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"can't be reached \(.*refused\); expected a Hugging Face hub"):
        import_model("owner/tiny")
    assert list(models.iterdir()) == []
