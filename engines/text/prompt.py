"""What surrounds pictures and question: the manifest's `prompt`, as token ids."""

from __future__ import annotations

from config.errors import ModelError
from engines.manifest import MANIFEST, Model
from engines.tokenizer import Tokenizer

FAKE, GLOBAL, IMAGE = "<fake_token_around_image>", "<global-img>", "<image>"


class Prompt:
    """The template of one model. `{image}` is spelled as Idefics3Processor does for unsplit pictures: each with a fake
    token before and after it, so that there are two between neighbours. Raises ModelError for a template that the
    model can't read.

    A start token is put before it once: where template and tokenizer both bring one, `transformers` drops the second.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        self._template = model.manifest.prompt
        self._picture = FAKE + GLOBAL + IMAGE * model.manifest.visual_tokens + FAKE
        self._tokenizer = tokenizer
        self.image = tokenizer.id(IMAGE)
        self._fake = tokenizer.id(FAKE)
        plain, started = (encode(self._lay_out(self._picture, "")) for encode in (tokenizer.words, tokenizer.encode))
        self._encode = tokenizer.words if started[:2] == plain[:1] * 2 else tokenizer.encode
        images, fakes = (started.count(token) for token in (self.image, self._fake))
        if (images, fakes) != (model.manifest.visual_tokens, 2):
            raise ModelError(
                f"{model.folder / MANIFEST}: key `prompt`: found {self._template!r}, which gives {images} × `{IMAGE}` "
                f"and {fakes} × `{FAKE}`; expected {model.manifest.visual_tokens} and 2, all of them from `{{image}}`; "
                "write the template without image tokens of its own"
            )

    def start(self, pictures: int = 1) -> list[int]:
        """Ids up to the end of the last picture. Special tokens never merge with their neighbours, so they don't depend
        on what follows."""
        ids = self._encode(self._lay_out(self._picture * pictures, ""))
        return ids[: self._end_of_picture(ids)]

    def rest(self, question: str) -> list[int]:
        """Ids after the last picture: the question, what surrounds it, and the beginning of the answer."""
        ids = self._encode(self._lay_out(FAKE, self._tokenizer.without_special(question)))
        return ids[self._end_of_picture(ids) :]

    def _lay_out(self, pictures: str, question: str) -> str:
        # The picture first: a question may well hold the word `{image}`.
        return self._template.replace("{image}", pictures).replace("{question}", question)

    def _end_of_picture(self, ids: list[int]) -> int:
        return len(ids) - ids[::-1].index(self._fake)
