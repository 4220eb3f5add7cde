"""What `stillwatch doctor` says is used, on the simulated Jetson and without one, and how to have what is better."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.doctor import Report, examine
from agent.runtimes import choose_decoder, choose_encoder
from engines.manifest import find_model, load_model

COMMAND = re.compile(r"(apt install|pip install|git clone) \S|`stillwatch [a-z]+ \S|set `describer: ")
PARTS = ("capture", "flow", "kernels", "encoder", "decoder")


def not_taken(report: Report) -> dict[str, tuple[str, ...]]:
    return {name: report.parts[name].not_taken for name in PARTS}


def test_each_better_choice_is_one_sentence_with_the_command_that_brings_it(tmp_path: Path) -> None:
    report = examine(has=lambda module: False, sysfs=tmp_path)
    assert all(not_taken(report).values())
    sentences = [sentence for part in not_taken(report).values() for sentence in part]
    assert [sentence for sentence in sentences if not COMMAND.search(sentence) or not sentence.endswith(".")] == []


@pytest.mark.usefixtures("jetson")
def test_a_jetson_on_which_nothing_is_missing_uses_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("STILLWATCH_SIM_TENSORRT", "10.3.0")
    before = examine(sysfs=tmp_path)
    for part in ("encoder", "decoder"):
        assert before.parts[part].used.startswith("ONNX Runtime")
        assert "`stillwatch model build reference`" in before.parts[part].not_taken[0]
    model = load_model(find_model("reference"))
    choose_decoder(model, beside=choose_encoder(model))
    report = examine(sysfs=tmp_path)
    used = {name: report.parts[name].used for name in PARTS}
    assert used["capture"].startswith("jetson-utils") and "OFA" in used["flow"] and "CUDA" in used["kernels"]
    assert used["encoder"] == used["decoder"] == "TensorRT 10.3.0 (fp16) on Orin (simulated)"
    left = [sentence for part in not_taken(report).values() for sentence in part]
    assert len(left) == 1 and "describer" in left[0]


def test_vpi_without_pycuda_names_the_command_that_brings_it(tmp_path: Path) -> None:
    report = examine(has=lambda module: module == "vpi", sysfs=tmp_path)
    assert [sentence for sentence in report.parts["flow"].not_taken if not COMMAND.search(sentence)] == []
