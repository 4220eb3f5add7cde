"""docs/configuration.md and the settings model say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agent.coherence.settings import AUTO, PROFILES
from agent.metrics import Metrics
from config.document import KeyPath
from config.loading import load, section_at
from config.settings import Profile, Settings
from config.values import parse_bytes

PAGE = (Path(__file__).parents[1] / "docs/configuration.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def leaves(section: type[BaseModel], path: KeyPath = ()) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        below = (*path, name)
        inner = section_at(below)
        each = "N" if get_origin(field.annotation) is list else "ID"
        if inner is None and (keyed := section_at((*below, each))) is not None:
            below, inner = (*below, each), keyed
        if inner is not None:
            yield from leaves(inner, below)
        else:
            yield ".".join(map(str, below)), field


def test_the_page_lists_every_key_and_its_default() -> None:
    rows = dict(ROW.findall(PAGE))
    fields = dict(leaves(Settings))
    assert set(rows) == set(fields)
    for key, field in fields.items():
        told = rows[key].strip("`")
        if field.is_required():
            assert told == "required", key
        elif field.default_factory is not None or field.default is None:
            assert told in ("none", "off", "all", "random"), key
        elif key.startswith("describer.prompt."):
            assert told == "built-in"
        elif isinstance(field.default, bool):
            assert told == str(field.default).lower(), key
        else:
            assert told == str(field.default) or float(parse_bytes(told)) == float(field.default), key  # type: ignore[arg-type]


def test_every_profile_is_one_of_the_coherent_path() -> None:
    assert set(get_args(Profile)) == {*PROFILES, AUTO}


def test_the_page_s_example_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    path = tmp_path / "agent.yaml"
    path.write_text(example[1], encoding="utf-8")
    assert load(path, {}).metrics.port == 9108


def test_the_describer_page_s_example_is_valid_and_sends_pictures_where_it_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/describer.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    path = tmp_path / "agent.yaml"
    path.write_text(example[1], encoding="utf-8")
    describer = load(path, {}).describer
    assert describer is not None and describer.url == "http://192.168.1.30:8000/v1"
    metrics = Metrics("0")
    metrics.describer_request("answered", 1.0)
    told = set(re.findall(r"`(stillwatch_\w+)`", page))
    published = {sample.name for metric in metrics.registry.collect() for sample in metric.samples}
    published |= {metric.name for metric in metrics.registry.collect()}
    assert told and told <= published
