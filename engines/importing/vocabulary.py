"""Does the tokenizer belong to the weights? Ids that mean something else make a model talk nonsense, and no error."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from config.errors import ModelError
from engines.checkpoint import ModelConfig, read_json
from engines.text.prompt import FAKE, IMAGE

_SPARE = 1024  # rows that a table may have beyond the tokenizer's ids: it's padded to a round number


def read_tokenizer(file: Path, config: ModelConfig) -> tokenizers.Tokenizer:
    """The tokenizer of a checkpoint. Raises ModelError when it can't be read or is of another model."""
    read_json(file)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{file}: can't be read ({error}); expected a tokenizer of the `tokenizers` library"
        ) from error
    size, rows = max(tokenizer.get_vocab().values(), default=-1) + 1, config.text_config.vocab_size
    if not rows - _SPARE <= size <= rows:
        raise ModelError(
            f"{file}: found {size} tokens, expected {max(0, rows - _SPARE)} to {rows} for config.json's `vocab_size` "
            f"{rows}: the tokenizer is of another model"
        )
    for token in (IMAGE, FAKE):
        if tokenizer.token_to_id(token) is None:
            raise ModelError(f"{file}: holds no token `{token}`; expected it: the tokenizer is of another model")
    if (found := tokenizer.token_to_id(IMAGE)) != config.image_token_id:
        raise ModelError(
            f"{file}: token `{IMAGE}` has the id {found}, expected config.json's `image_token_id` "
            f"{config.image_token_id}: the tokenizer is of another model"
        )
    return tokenizer
