"""The imported model against `transformers`: one picture and one question through both, in single precision."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from engines.importing.template import template_of
from engines.manifest import Manifest, Model
from engines.preprocess import Preprocessor
from engines.text.prompt import FAKE, GLOBAL, IMAGE
from engines.tokenizer import Tokenizer
from engines.verification import QUESTION, Check, alike, close, decoder_of, encoder_of, pictures

NEW_TOKENS = 16

Say = Callable[[str], object]


def absent() -> str:
    """Why `transformers` can't be asked; empty when it can."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (pip install 'stillwatch[train]')"
    return ""


def lacking_memory(size: int) -> str:
    """Why `transformers` would not fit; empty when it does. size: of all parameters in single precision, in bytes."""
    needed, free = 1.3 * size, _free_memory()
    return f"it needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free" if needed > free else ""


def against_transformers(source: Path, model: Model, *, exact: bool, say: Say) -> tuple[list[Check], str]:
    """Features, visual tokens, logits, token ids and a greedy answer against the checkpoint in `source`, in single
    precision; and the version of transformers. exact: the weights are the checkpoint's own, so values must agree to
    1e-3 and the answers word for word; else features, visual tokens and logits must point the same way."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    manifest, picture = model.manifest, pictures(model.manifest.image_size, 1)[0]
    say("reading and answering with the imported model")
    features = encoder_of(model).encode_full(picture)
    decoder = decoder_of(model)
    visual = decoder.visual_tokens(features)
    logits = decoder.look(features).logits
    text = "".join(decoder.generate(features, QUESTION, max_tokens=NEW_TOKENS))
    del decoder  # both models at once may not fit
    ids = _prompt_ids(model)
    tokenizer = Tokenizer(model.folder / "tokenizer.json")
    read = len(ids) - ids[::-1].index(tokenizer.id(FAKE))

    say("reading and answering with transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    theirs, loading = transformers.AutoModelForImageTextToText.from_pretrained(
        source, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    if missing := sorted(set(loading["missing_keys"])):
        raise ModelError(f"{source}: transformers finds no parameter {', '.join(missing[:3])}; expected all of them")
    theirs.eval()
    pixels = torch.from_numpy(_pixels(manifest, picture))[None, None]
    with torch.no_grad():
        their_features = theirs.model.vision_model(pixels[0]).last_hidden_state
        their_visual = theirs.model.connector(their_features)[0]
        given = {"pixel_values": pixels, "input_ids": torch.tensor([ids])}
        their_logits = theirs(**{**given, "input_ids": given["input_ids"][:, :read]}, logits_to_keep=1).logits[0, -1]
        settings = transformers.GenerationConfig(
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=[tokenizer.id(t) for t in manifest.eos],
            pad_token_id=0,
        )
        out = theirs.generate(**given, attention_mask=torch.ones_like(given["input_ids"]), generation_config=settings)[
            0
        ]
    their_text = tokenizer.decode(out[len(ids) :].tolist())
    compare = close if exact else alike
    checks = [
        compare("vision features = transformers", features, their_features[0].numpy()),
        compare("visual tokens = transformers", visual, their_visual.numpy()),
        compare("logits after the picture = transformers", logits[None], their_logits.numpy()[None]),
        Check(f"greedy answer of {NEW_TOKENS} tokens = transformers", None, None, "the same text", text == their_text),
        Check(
            "token ids of the prompt = transformers", None, None, "the same ids", ids == _their_ids(source, manifest)
        ),
    ]
    if not exact:
        checks.pop(3)  # rounding may tip a choice between two words that are equally likely
    return checks, transformers.__version__


def _expanded(text: str, manifest: Manifest) -> str:
    return text.replace("{image}", FAKE + GLOBAL + IMAGE * manifest.visual_tokens + FAKE)


def _prompt_ids(model: Model) -> list[int]:
    prompt = _expanded(model.manifest.prompt, model.manifest).replace("{question}", QUESTION)
    return Tokenizer(model.folder / "tokenizer.json").encode(prompt)


def _their_ids(source: Path, manifest: Manifest) -> list[int]:
    """Ids that transformers' tokenizer gives for the same question, by the checkpoint's own template if it has one."""
    transformers: Any = importlib.import_module("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(source, local_files_only=True)
    template, _ = template_of(source)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = (
        tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], chat_template=template, tokenize=False, add_generation_prompt=True
        ).replace(IMAGE, "{image}")
        if template
        else manifest.prompt.replace("{question}", QUESTION)
    )
    started = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return list(tokenizer(_expanded(text, manifest), add_special_tokens=not (template and started)).input_ids)


def _pixels(manifest: Manifest, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalised pixels (3, S, S) of a picture that has the model's size, from the patches that our encoder reads.
    Pixels beyond the last whole patch are 0; no patch reads them."""
    p, side = manifest.patch_size, manifest.grid[0]
    patches = Preprocessor(manifest).patches(picture).reshape(side, side, 3, p, p)
    pixels = np.zeros((3, manifest.image_size, manifest.image_size), np.float32)
    pixels[:, : side * p, : side * p] = patches.transpose(2, 0, 3, 1, 4).reshape(3, side * p, side * p)
    return pixels


def _free_memory() -> float:
    """Bytes that can be taken without swapping; all of the machine's where the kernel doesn't say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
