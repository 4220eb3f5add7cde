"""Is the imported model the model of its checkpoint? What is compared, and with what outcome, goes into a report.

Our own checks need only ONNX Runtime: the selective encoder against the full one, and a question asked and answered.
Where torch and transformers are installed, the same picture and the same question also go through `transformers`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from engines.decoder import FAKE, GLOBAL, IMAGE, Decoder
from engines.importing.template import template_of
from engines.manifest import Manifest, Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from engines.preprocess import Preprocessor
from engines.tokenizer import Tokenizer

QUESTION = "What is in the picture?"
NEW_TOKENS = 16
EXACT = 1e-3  # largest error in proportion to the largest value, where only the order of additions differs
ROUNDED = 0.999  # least cosine after weights were rounded to half precision
FIDELITY = 0.995  # least mean cosine of features after quantisation

Say = Callable[[str], object]
Pictures = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison. relative_error: largest difference over largest value; cosine: of corresponding rows, the mean;
    both None where texts or ids are compared. limit: in words, what had to hold."""

    name: str
    relative_error: float | None
    cosine: float | None
    limit: str
    passed: bool

    def __str__(self) -> str:
        numbers = [
            f"{label} {value:.3g}" if label == "error" else f"{label} {value:.6f}"
            for label, value in (("error", self.relative_error), ("cosine", self.cosine))
            if value is not None
        ]
        return f"{self.name}: {', '.join([*numbers, 'as expected' if self.passed else 'NOT ' + self.limit])}"


def pictures(size: int, count: int = 4) -> list[NDArray[np.uint8]]:
    """Drawn pictures (size, size, 3): a shaded ground, shapes, some noise. The same ones every time."""
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(count):
        ground = np.linspace(rng.integers(0, 256, 3), rng.integers(0, 256, 3), size)[:, None].repeat(size, 1)
        picture = np.ascontiguousarray(ground + rng.normal(0, 6, (size, size, 3))).clip(0, 255).astype(np.uint8)
        for _ in range(6):
            (x, y), colour = rng.integers(0, size, 2).tolist(), rng.integers(0, 256, 3).tolist()
            width, height = rng.integers(size // 16, size // 3, 2).tolist()
            cv2.rectangle(picture, (x, y), (x + width, y + height), colour, -1)
            cv2.circle(picture, (y, x), width // 2, colour[::-1], -1)
        drawn.append(picture)
    return drawn


def features_of(model: Model) -> list[NDArray[np.float32]]:
    """Features (T, D) of every drawn picture."""
    encoder = OnnxEncoder(OnnxRuntime(model, spin=False))
    return [encoder.encode_full(picture) for picture in pictures(model.manifest.image_size)]


def own_checks(model: Model) -> list[Check]:
    """What can be told without another implementation: every graph loads and runs, and selecting gives what a full
    encode gives. Raises ModelError when a graph can't be loaded, EngineFault when one fails."""
    first, second = pictures(model.manifest.image_size, 2)
    encoder = OnnxEncoder(OnnxRuntime(model, spin=False))
    everything = np.arange(model.manifest.tokens, dtype=np.int64)
    full = encoder.encode_full(second)
    encoder.encode(first, EncodePlan(Mode.FULL, None))
    selected = encoder.encode(second, EncodePlan(Mode.HIERARCHICAL_DIFF, everything)).features.copy()
    again = encoder.encode(second, EncodePlan(Mode.HIERARCHICAL_DIFF, everything[::3])).features
    checks = [
        close("selective encoding of every token = full encoding", selected, full),
        close("selective encoding of a third of an unchanged picture = full encoding", again, full),
    ]
    decoder = Decoder(model, spin=False)
    logits = decoder.look(full).logits
    answer = "".join(decoder.generate(full, QUESTION, max_tokens=4))
    checks.append(
        Check(
            "a question is answered",
            None,
            None,
            "finite logits",
            bool(np.isfinite(logits).all()) and answer is not None,
        )
    )
    return checks


def fidelity(before: Sequence[NDArray[np.float32]], after: Sequence[NDArray[np.float32]], dtype: str) -> Check:
    """Mean cosine between features before and after quantisation."""
    cosine = float(np.mean([_cosine(a, b) for a, b in zip(after, before, strict=True)]))
    return Check(f"features in {dtype} against before", None, cosine, f"cosine ≥ {FIDELITY}", cosine >= FIDELITY)


def absent() -> str:
    """Why `transformers` can't be asked; empty when it can."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (pip install 'stillwatch[train]')"
    return ""


def lacking_memory(parameters: int) -> str:
    """Why `transformers` would not fit beside us; empty when it does. It holds every parameter in single precision."""
    needed, free = 4 * parameters * 1.2, _free_memory()
    return f"it needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free" if needed > free else ""


def against_transformers(source: Path, model: Model, *, exact: bool, say: Say) -> tuple[list[Check], str]:
    """Features, visual tokens, logits, token ids and a greedy answer against the checkpoint in `source`, in single
    precision; and the version of transformers. exact: the weights are the checkpoint's own, so values must agree to
    1e-3 and the answers word for word; else features, visual tokens and logits must point the same way."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    manifest, picture = model.manifest, pictures(model.manifest.image_size, 1)[0]
    say("reading and answering with the imported model")
    features = OnnxEncoder(OnnxRuntime(model, spin=False)).encode_full(picture)
    decoder = Decoder(model, spin=False)
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


def close(name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Check:
    """Rows (n, d) that must agree but for rounding."""
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return Check(name, error, _cosine(ours, theirs), f"error ≤ {EXACT:g}", error <= EXACT)


def alike(name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Check:
    """Rows (n, d) that must point the same way."""
    error, cosine = float(np.abs(ours - theirs).max() / np.abs(theirs).max()), _cosine(ours, theirs)
    return Check(name, error, cosine, f"cosine ≥ {ROUNDED}", cosine >= ROUNDED)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(((x * y).sum(-1) / np.maximum(np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1), 1e-12)).mean())


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
