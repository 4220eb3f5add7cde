"""The tokenizer, and questions laid out for the language model: a picture is read once and answers many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from agent.capture.scene.language import vocabulary

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
    "<image>",
]
TOPICS = {
    name: code
    for code, name in enumerate(
        ("caption", "presence", "yes_no", "count", "position", "colour", "action", "side", "absence", "ambience",
         "change", "changed")
    )
}  # fmt: skip
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def make_tokenizer(folder: Path) -> Any:
    """A byte-level BPE tokenizer on the grammar's own sentences, in the Hugging Face layout."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*vocabulary(), "User:", "\nAssistant:"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[3:],
        model_max_length=2048,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


Turn = tuple[list[int], int, int]
"""Ids of one question with its answer, how many of them belong to the question, code of its topic."""


class Words:
    """Token ids of the prompt's pieces."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._seen: dict[str, list[int]] = {}
        special = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
        self.pad, self.image = special["<|endoftext|>"], special["<image>"]
        self.end, self.start = special["<end_of_utterance>"], special["<|im_start|>"]
        self._fake, self._overall = special["<fake_token_around_image>"], special["<global-img>"]

    def __call__(self, text: str) -> list[int]:
        if text not in self._seen:
            self._seen[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._seen[text]

    def head(self, pictures: int, visual: int) -> list[int]:
        """The prompt up to the question, `visual` image tokens a picture, as Idefics3Processor spells it."""
        block = [self._fake, self._overall, *[self.image] * visual, self._fake]
        return [self.start, *self("User:"), *block * pictures]

    def turn(self, ask: str, answer: str, topic: str) -> Turn:
        head = [*self(ask), self.end, *self("\n"), *self("Assistant:")]
        return [*head, *self(" " + answer), self.end], len(head), TOPICS[topic]


def pack(words: Words, turns: list[list[Turn]], visual: int, pictures: int) -> dict[str, Any]:
    """One row each: prompt with its pictures, then every turn; a turn sees the prompt, the pictures and itself."""
    import torch

    head = words.head(pictures, visual)
    shared = len(head)
    length = shared + max(sum(len(ids) for ids, _, _ in row) for row in turns)
    ids = np.full((len(turns), length), words.pad, np.int64)
    ids[:, :shared] = head
    targets, topic = (np.full((len(turns), length), -1, np.int64) for _ in range(2))
    positions = np.zeros((len(turns), length), np.int64)
    positions[:, :shared] = np.arange(shared)
    turn_of = np.full((len(turns), length), -1, np.int64)
    turn_of[:, :shared] = 0
    for b, row in enumerate(turns):
        at = shared
        for n, (turn, asked, code) in enumerate(row):
            end = at + len(turn)
            ids[b, at:end] = turn
            positions[b, at:end] = shared + np.arange(len(turn))
            turn_of[b, at:end] = n + 1
            targets[b, at + asked - 1 : end - 1] = turn[asked:]
            topic[b, at + asked - 1 : end - 3] = code  # without full stop and end
            at = end
    t = torch.from_numpy(turn_of)
    sees = (t[:, None, :] == 0) | (t[:, None, :] == t[:, :, None])
    sees &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(sees.shape, dtype=torch.float32).masked_fill_(~sees, -1e9)[:, None]
    return {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets), "topic": torch.from_numpy(topic),
            "positions": torch.from_numpy(positions), "mask": mask,
            "spots": torch.from_numpy(np.flatnonzero(np.array(head) == words.image))}  # fmt: skip
