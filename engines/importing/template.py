"""The prompt of a model, from the chat template of its checkpoint.

A template is a Jinja program that somebody else wrote: it runs in Jinja's sandbox, with what `transformers` gives it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from config.errors import ModelError
from engines.checkpoint import read_json
from engines.export import SMOLVLM_PROMPT

_QUESTION = "Qu3st10n"  # stands for the question while the template runs; braces might mean something to it
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def prompt_of(folder: Path, tokenizer: tokenizers.Tokenizer, image: str) -> tuple[str, str]:
    """Prompt with `{image}` and `{question}`, and the file it comes from; where the checkpoint has no template that is
    empty, and the prompt is SmolVLM's. Raises ModelError when the template can't be used."""
    template, file = template_of(folder)
    if not template:
        return SMOLVLM_PROMPT, ""
    content = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    text = _render(template, [{"role": "user", "content": content}], folder, file)
    if text.count(image) != 1 or text.count(_QUESTION) != 1 or text.index(image) > text.index(_QUESTION):
        raise ModelError(
            f"{folder / file}: the chat template turns a picture and a question into {text!r}; expected `{image}` "
            "once, and after it the question once"
        )
    prompt = _without_start(text, tokenizer)
    return prompt.replace(image, "{image}").replace(_QUESTION, "{question}"), file


def template_of(folder: Path) -> tuple[str, str]:
    """The template and the name of its file, where `transformers` looks for it."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8"), own.name
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = read_json(folder / name).get("chat_template") if (folder / name).is_file() else None
        if isinstance(found, list):  # several, by name
            found = next((entry.get("template") for entry in found if entry.get("name") == "default"), None)
        if isinstance(found, str):
            return found, name
    return "", ""


def _render(template: str, messages: list[dict[str, Any]], folder: Path, file: str) -> str:
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise ModelError(
            f"{folder / file}: a chat template needs the package jinja2: pip install 'stillwatch[import]'"
        ) from error
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, **_special_tokens(folder)
        )
    except Exception as error:  # whatever the template does
        raise ModelError(
            f"{folder / file}: the chat template fails: {error}; expected one for a picture and a text"
        ) from error


def _special_tokens(folder: Path) -> dict[str, str]:
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    found = {}
    for name in _TOKENS:
        token = settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found


def _without_start(text: str, tokenizer: tokenizers.Tokenizer) -> str:
    """The text less a start token that the tokenizer puts before every text by itself."""
    found = tokenizer.encode(text)
    if found.special_tokens_mask[0] and found.ids[:2] == [found.ids[0]] * 2:
        return text.removeprefix(found.tokens[0])
    return text
