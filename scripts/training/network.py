"""The network in training: its tower run in full and in part, what is learned from that, and the optimiser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from agent.capture.scene.language import DOINGS, SIDES
from agent.capture.scene.truth import COLOURS, KINDS
from scripts.training.pictures import GRID, PATCH, SIZE
from scripts.training.words import TOPICS, Words

WIDTH, MERGE = 192, 2
ACTIONS = tuple(DOINGS)
THINGS = 1 + len(KINDS) * len(COLOURS)
WEIGHTS = {"thing": 1.0, "pose": 0.5, "side": 0.5, "row": 0.1, "column": 0.1, "colours": 0.5, "same": 0.15}
FIDELITY = 5.0
"""Weight of 1 − cosine between a partial and a full encode, which is about 0.02."""
COARSE = 0.25
"""Weight of a coarse token in that."""


def make_network(words: Words, vocabulary_size: int) -> Any:
    """The Idefics3 shape, small: SigLIP-style tower 6 × 192, pixel shuffle by 2, Llama 6 × 192."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    config = Idefics3Config(
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3,
            "image_size": SIZE, "patch_size": PATCH,
        },
        text_config={
            "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": 448, "num_hidden_layers": 6,
            "num_attention_heads": 3, "num_key_value_heads": 1, "vocab_size": vocabulary_size,
            "max_position_embeddings": 2048, "rope_theta": 10_000.0, "tie_word_embeddings": True,
            "bos_token_id": words.start, "eos_token_id": words.end, "pad_token_id": words.pad,
        },
        scale_factor=MERGE, image_token_id=words.image, tie_word_embeddings=True, pad_token_id=words.pad,
    )  # fmt: skip
    network = Idefics3ForConditionalGeneration(config)
    for name, weight in network.named_parameters():
        if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
            deep = name.endswith(("out_proj.weight", "o_proj.weight", "fc2.weight", "down_proj.weight"))
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5 * (0.3 if deep else 1.0))
        elif "patch_embedding.weight" in name:
            nn.init.normal_(weight, std=(3 * PATCH * PATCH) ** -0.5)
        elif "position_embedding" in name:
            weight.data = torch.from_numpy(waves(weight.shape[1]))
    return network


def waves(width: int, amplitude: float = 0.25) -> np.ndarray:
    """Positions to start from, float32 (400, width): sines and cosines of row and column, 40 to 4 patches long. From
    noise the tower learns rows, which perspective rewards, and leaves columns at chance."""
    speeds = 2 * np.pi / np.geomspace(2 * GRID, 4, width // 4)
    row, column = np.divmod(np.arange(GRID * GRID), GRID)
    angles = np.concatenate([row[:, None] * speeds, column[:, None] * speeds], axis=1)
    return (amplitude * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).astype(np.float32)


def start_from(network: Any, tokenizer: Any, folder: Path) -> None:
    """Take over the weights of an earlier model folder; words keep their vectors by their text. Where that has fewer
    text layers, those it lacks are spread among its own, and pass on what they get until they learn otherwise."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    weights = load_file(folder / "model.safetensors")
    old = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    own = network.state_dict()
    stack = "model.text_model.layers."
    layers = len(network.model.text_model.layers)
    learned = 1 + max(int(name.split(".")[3]) for name in weights if name.startswith(stack))
    place = [(i + 1) * layers // learned - 1 for i in range(learned)]
    for number in set(range(layers)) - set(place):
        own[f"{stack}{number}.self_attn.o_proj.weight"].zero_()
        own[f"{stack}{number}.mlp.down_proj.weight"].zero_()
    for name, weight in weights.items():
        if "embed_tokens" in name or "lm_head" in name:
            for word, row in tokenizer.get_vocab().items():
                if word in old:
                    own[name][row] = weight[old[word]].float()
        elif name.startswith(stack):
            number, _, rest = name[len(stack) :].partition(".")
            own[f"{stack}{place[int(number)]}.{rest}"] = weight.float()
        else:
            own[name] = weight.float()
    network.load_state_dict(own)


class Trainee:
    """The network with the heads of training, and the loss of one batch."""

    def __init__(self, network: Any) -> None:
        self.network = network
        sizes = {"thing": THINGS, "pose": len(ACTIONS), "side": len(SIDES), "row": GRID, "column": GRID,
                 "colours": 12, "same": 96}  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in sizes.items()})
        self.thing_weights = torch.ones(THINGS)
        self.thing_weights[0] = 0.1

    def parameters(self) -> list[tuple[str, Any]]:
        return [*self.network.named_parameters(), *self.heads.named_parameters(prefix="heads")]

    def loss(self, batch: dict[str, Any], *, words_only: bool = False) -> tuple[Any, dict[str, float]]:
        """The loss, and what was right by topic. words_only: the tower is left as it is.

        batch: `patches` (2P, T, 588) and `slots` (2P, T), the earlier pictures of P pairs and then the later ones; the
        first R pairs are rendered. `source`, `fresh`, `coarse` (P, T): how the later one is encoded in part. `single`
        and `double`: packed words on one picture (2R rows, as the patches) and on two (R rows).
        """
        pairs = len(batch["source"])
        rendered = len(batch["thing"]) // 2
        facts: dict[str, float] = {}
        if "features" in batch:
            return self._said(batch, batch["features"], facts), facts
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(not words_only):
                embedded = self._embed(batch["patches"])
                places = self._places(batch["slots"])
                full, keys, values = self._tower(embedded + places)
                before, now = full[:pairs], full[pairs:]
                part = self._in_part(batch, embedded[pairs:], places[pairs:], before, keys, values)
            use_part = batch["use_part"][:, None, None]
            later = torch.where(use_part, part[:rendered], now[:rendered])
            told = torch.cat([before[:rendered], later])
        words = self._said(batch, told, facts)
        fidelity, facts["drift"], facts["coarse"] = self._fidelity(batch, part.float(), now.float())
        if words_only:
            batch["features"] = told  # more may be asked about the same pictures
            return words, facts
        looked = self._look(batch, torch.cat([before[:rendered], now[:rendered]]), full, facts)
        looked = looked + WEIGHTS["same"] * self._same(batch, before.float(), now.float(), facts)
        return words + looked + FIDELITY * fidelity, facts

    def _said(self, batch: dict[str, Any], features: Any, facts: dict[str, float]) -> Any:
        """Loss of the words about features (2R, T, D): the earlier pictures, then the later ones."""
        with torch.autocast("cpu", torch.bfloat16):
            visual = self.network.model.connector(features)
            words = self._words(batch["single"], [visual], facts)
            both = visual.chunk(2)
            return words + 0.5 * self._words(batch["double"], [*(both[::-1] if batch["backwards"] else both)], facts)

    def _embed(self, patches: Any) -> Any:
        embed = self.network.model.vision_model.embeddings.patch_embedding
        return F.linear(patches, embed.weight.flatten(1), embed.bias)

    def _places(self, slots: Any) -> Any:
        return self.network.model.vision_model.embeddings.position_embedding(slots)

    def _tower(self, hidden: Any, bias: Any = None, cached: Any = None) -> tuple[Any, list[Any], list[Any]]:
        """Features (B, T, D) and keys and values (B, H, T, dh) by layer. bias: (B, T) added to every score of a key.
        cached: keys, values by layer and where to use them, bool (B, T)."""
        tower = self.network.model.vision_model
        all_keys, all_values = [], []
        mask = None if bias is None else bias[:, None, None, :].to(torch.bfloat16)
        for i, layer in enumerate(tower.encoder.layers):
            attention = layer.self_attn
            h = layer.layer_norm1(hidden)
            q, k, v = (
                project(h).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            if cached is not None:
                here = cached[2][:, None, :, None]
                k, v = torch.where(here, cached[0][i], k), torch.where(here, cached[1][i], v)
            all_keys.append(k)
            all_values.append(v)
            h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            hidden = hidden + attention.out_proj(h.transpose(1, 2).flatten(2))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        return tower.post_layernorm(hidden), all_keys, all_values

    def _in_part(self, batch: dict[str, Any], embedded: Any, places: Any, before: Any, keys: Any, values: Any) -> Any:
        """Features (P, T, D) of the later pictures as the product gets them: of `fresh` tokens encoded anew, of the
        others from token `source` of the earlier picture; where `coarse` ≥ 0 one token stands for four.

        Exactly the engine's arithmetic: a coarse token has the mean of its cell's positions, the half-size pixels, and
        weighs as much as four (+log 4 on its key); the three other slots of its cell are not seen."""
        pairs, tokens = batch["source"].shape
        first, coarse = batch["first"], batch["coarse"]
        of = torch.arange(pairs)[:, None]
        middle = self._places(batch["cell_slots"]).mean(dim=2)
        hidden = torch.where(first[..., None], self._embed(batch["coarse_patches"]) + middle, embedded + places)
        hidden_slots = coarse & ~first
        bias = torch.zeros(pairs, tokens).masked_fill_(first, math.log(4)).masked_fill_(hidden_slots, -1e9)
        fresh = batch["fresh"] | coarse
        cached = [
            [layer[:pairs].transpose(1, 2)[of, batch["source"]].transpose(1, 2) for layer in part]
            for part in (keys, values)
        ]
        new, _, _ = self._tower(hidden, bias, (*cached, ~fresh))
        new = new[of, batch["owner"]]
        return torch.where(fresh[..., None], new, before[of, batch["source"]].to(new.dtype))

    @staticmethod
    def _fidelity(batch: dict[str, Any], part: Any, now: Any) -> tuple[Any, float, float]:
        error = 1 - F.cosine_similarity(part, now, dim=-1)
        coarse = batch["coarse"]
        weight = torch.where(coarse, COARSE, 1.0)
        fine = error.detach()[~coarse].mean().item()
        rough = error.detach()[coarse].mean().item() if coarse.any() else fine
        return (error * weight).mean(), fine, rough

    def _look(self, batch: dict[str, Any], features: Any, full: Any, facts: dict[str, float]) -> Any:
        """What the heads make of the tokens: things, poses and places of rendered pictures, colours of all."""
        truths = {name: batch[name].flatten() for name in ("thing", "pose", "side")}
        slots = batch["slots"][batch["picture_rows"]].flatten()
        truths |= {"row": slots // GRID, "column": slots % GRID}
        total: Any = 0.0
        for name, truth in truths.items():
            said = self.heads[name](features).float().flatten(0, 1)
            weight = self.thing_weights if name == "thing" else None
            total = total + WEIGHTS[name] * F.cross_entropy(said, truth, weight=weight, ignore_index=-1)
            if name in ("thing", "pose", "side"):
                asked = truth > 0 if name == "thing" else truth >= 0
                facts[f"patch_{name}"] = (said.argmax(-1) == truth)[asked].float().mean().item()
        colours = F.mse_loss(self.heads["colours"](full).float(), batch["colours"])
        facts["colours"] = colours.item()
        return total + WEIGHTS["colours"] * colours

    def _same(self, batch: dict[str, Any], before: Any, now: Any, facts: dict[str, float]) -> Any:
        """A token that has not changed should be most like itself in the earlier picture, among many others."""
        still, source = batch["still"], batch["source"]
        pair, slot = still[:, 0], still[:, 1]
        ours = F.normalize(self.heads["same"](now[pair, slot]), dim=-1)
        theirs = F.normalize(self.heads["same"](before[pair, source[pair, slot]]), dim=-1)
        scores = ours.float() @ theirs.float().T / 0.1
        truth = torch.arange(len(still))
        facts["same"] = (scores.argmax(-1) == truth).float().mean().item()
        return F.cross_entropy(scores, truth)

    def _words(self, packed: dict[str, Any], pictures: list[Any], facts: dict[str, float]) -> Any:
        text = self.network.model.text_model
        visual = torch.cat(pictures, dim=1)
        hidden = text.embed_tokens(packed["ids"]).to(visual.dtype).index_copy(1, packed["spots"], visual)
        rotary = text.rotary_emb(hidden, packed["positions"])
        for layer in text.layers:
            hidden = layer(hidden, attention_mask=packed["mask"].to(hidden.dtype), position_embeddings=rotary)
        said = packed["targets"] >= 0
        logits = self.network.lm_head(text.norm(hidden)[said])
        targets = packed["targets"][said]
        right = (logits.argmax(-1) == targets).float()
        for topic, code in TOPICS.items():
            of = packed["topic"][said] == code
            if of.any():
                facts[topic] = right[of].mean().item()
        return F.cross_entropy(logits.float(), targets)


def make_muon(matrices: list[Any], rate: float, weight_decay: float) -> Any:
    """Muon: momentum whose direction is made orthogonal by Newton–Schulz steps (Jordan et al., 2024), scaled to AdamW's
    step size. In float32 and stacked by shape: PyTorch's own works in bfloat16, which takes seconds a step on a CPU."""

    class Muon(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self) -> None:  # type: ignore[override]
            for group in self.param_groups:
                shapes: dict[Any, list[Any]] = {}
                for weight in group["params"]:
                    if weight.grad is not None:
                        shapes.setdefault(weight.shape, []).append(weight)
                for shape, weights in shapes.items():
                    steps = torch.stack([self._momentum(w) for w in weights])
                    steps = orthogonal(steps) * (0.2 * max(shape) ** 0.5)
                    for weight, change in zip(weights, steps, strict=True):
                        weight.mul_(1 - group["lr"] * weight_decay).sub_(change, alpha=group["lr"])

        def _momentum(self, weight: Any) -> Any:
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(weight.grad, 0.05)
            return weight.grad.lerp(state["momentum"], 0.95)

    def orthogonal(x: Any) -> Any:
        tall = x.shape[1] > x.shape[2]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        return x.mT if tall else x

    return Muon(matrices, {"lr": rate})
