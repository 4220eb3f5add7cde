"""Documents that nobody should be configured by, each with the code that it deserves; the same for the same seed.

The box that they are for is called `box`, is in the group `north`, trusts ops-1 and ops-2, and runs version `BASE` of
what `history` has sent it.
"""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from remote_world import NEXT, OPS, STRANGER, Sender, document

from agent.remote.reading import MAX_BYTES

BASE = 5
SECRET = "hunter2"


@dataclass(frozen=True)
class Attack:
    kind: str
    payload: bytes
    code: int


def history() -> list[bytes]:
    """What the box has taken, the oldest first; anybody who listens at the broker has it too."""
    versions = range(1, BASE + 1)
    return [OPS.seal(document(v, {"fidelity_floor": 0.9 + v / 100}, probation_s=3)) for v in versions]


def hostile(seed: int, now: datetime) -> Iterator[Attack]:
    """Without end; every kind comes once in as many documents as there are kinds."""
    random = Random(seed)
    while True:
        kinds = list(KINDS)
        random.shuffle(kinds)
        for kind in kinds:
            payload, code = KINDS[kind](random, now)
            yield Attack(kind, payload, code)


Made = tuple[bytes, int]


def _good(random: Random, **more: Any) -> dict[str, Any]:
    """What would be taken if nothing were wrong with it."""
    zone = [[0, 0], [random.randint(1, 600), 0], [9, random.randint(1, 400)]]
    config = random.choice(
        [
            {"profile": random.choice(["sports", "movie", "webcam"])},
            {"fidelity_floor": round(random.uniform(0.6, 0.95), 3)},
            {"cameras": {"front": {"fps": random.randint(1, 30), "zones": {"door": zone}}}},
        ]
    )
    return document(**{"version": random.randint(BASE + 1, 10**6), "config": config, **more})


def _trusted(random: Random) -> Sender:
    return random.choice([OPS, NEXT])


def _sealed(random: Random, wanted: dict[str, Any] | str) -> bytes:
    return _trusted(random).seal(wanted, _name(random))


def _name(random: Random) -> str:
    return "".join(random.choices(string.ascii_letters + " /+#\u00e9\"'", k=random.randint(1, 64)))


def _envelope(random: Random, **changes: Any) -> bytes:
    made = json.loads(_sealed(random, _good(random)))
    return json.dumps({key: value for key, value in (made | changes).items() if value is not ...}).encode()


def _unsigned(random: Random, _now: datetime) -> Made:
    return _envelope(random, sig=random.choice([..., None])), 401


def _wrong_key(random: Random, _now: datetime) -> Made:
    kid = random.choice(["ops-1", "ops-2", "root", "a" * 64])
    return Sender(kid, STRANGER.key).seal(_good(random)), 401


def _named_for_another(random: Random, _now: datetime) -> Made:
    """A good signature under the name of another key that is trusted as well."""
    return Sender("ops-2", OPS.key).seal(_good(random)), 401


def _tampered(random: Random, _now: datetime) -> Made:
    made = json.loads(_sealed(random, _good(random)))
    text: str = made["signed"]
    at = random.randrange(len(text))
    made["signed"] = random.choice(
        [text[:at] + random.choice("0123456789 x") + text[at + 1 :], text[:at], text + " ", text[:at] + "9" + text[at:]]
    )
    if made["signed"] == text:
        made["signed"] += "\n"
    return json.dumps(made).encode(), 401


def _tampered_signature(random: Random, _now: datetime) -> Made:
    made = json.loads(_sealed(random, _good(random)))
    raw = bytearray(base64.b64decode(made["sig"]["value"]))
    raw[random.randrange(64)] ^= 1 << random.randrange(8)
    value = base64.b64encode(bytes(raw[: random.choice([0, 1, 63, 64, 64, 64])])).decode()
    made["sig"]["value"] = random.choice([value, value, "!" + value[1:], value.replace("=", "")])
    return json.dumps(made).encode(), 401


def _signature_of_another(random: Random, _now: datetime) -> Made:
    """The signature of an old document under a new text."""
    old = json.loads(random.choice(history()))
    return _envelope(random, sig=old["sig"]), 401


def _strange_signature(random: Random, _now: datetime) -> Made:
    sig = json.loads(_envelope(random))["sig"]
    sig |= random.choice(
        [
            {"alg": "none"},
            {"alg": "hs256"},
            {"kid": "../keys"},
            {"kid": 1},
            {"value": 7},
            {"value": "A" * 500},
            {"x": 1},
        ]
    )
    return _envelope(random, sig=random.choice([sig, [sig], "ed25519", 1])), 400


def _replayed(random: Random, _now: datetime) -> Made:
    made = json.loads(random.choice(history()[:-1]))
    return json.dumps(made | {"id": _name(random)}).encode(), 409


def _replayed_now(random: Random, _now: datetime) -> Made:
    """What runs already: told again, applied no second time."""
    return json.dumps(json.loads(history()[-1]) | {"id": _name(random)}).encode(), 200


def _other_under_a_used_version(random: Random, _now: datetime) -> Made:
    return _sealed(random, _good(random) | {"version": random.randint(1, BASE)}), 409


def _other_base(random: Random, _now: datetime) -> Made:
    return _sealed(random, _good(random, base_version=random.choice([0, BASE - 1, BASE + 1, 10**6]))), 409


def _downgrade(random: Random, now: datetime) -> Made:
    wanted = _good(random, allow_downgrade=True) | {"version": random.randint(1, BASE)}
    if random.random() < 0.5:
        return _sealed(random, wanted), 400
    later = (now + timedelta(hours=1)).isoformat()
    return _sealed(random, wanted | {"base_version": BASE + 1, "expires": later}), 409


def _too_large(random: Random, _now: datetime) -> Made:
    size = random.randint(MAX_BYTES, 2 * MAX_BYTES)
    return random.choice(
        [_sealed(random, _good(random, config={"device": {"name": "x" * size}})), b"{" + b" " * size]
    ), 400


def _too_deep(random: Random, _now: datetime) -> Made:
    depth = random.randint(20, 3000)
    opened, closed = random.choice([("[", "]"), ('{"a":', "}")])
    deep = opened * depth + ("1" if opened != "[" else "") + closed * depth
    text = json.dumps(_good(random))[:-1] + f',"x":{deep}}}'
    return random.choice([_sealed(random, text), deep.encode(), opened.encode() * depth]), 400


def _wrong_box(random: Random, _now: datetime) -> Made:
    others: list[dict[str, Any]] = [{"device": "Box"}, {"device": "box2"}, {"device": None, "group": "south"}]
    return _sealed(random, _good(random, **random.choice(others))), 403


def _unbound(random: Random, _now: datetime) -> Made:
    unbound: list[dict[str, Any]] = [{"device": None}, {"group": "north"}, {"device": "+"}, {"device": "#"}]
    return _sealed(random, _good(random, **random.choice(unbound))), 400


def _expired(random: Random, now: datetime) -> Made:
    return _sealed(random, _good(random, expires=(now - timedelta(seconds=random.uniform(0, 10**8))).isoformat())), 410


def _forbidden(random: Random, _now: datetime) -> Made:
    config = random.choice(_FORBIDDEN)
    mode = random.choice(["merge", "replace", "check"])
    return _sealed(random, _good(random, mode=mode) | {"config": config}), 403


def _half_forbidden(random: Random, _now: datetime) -> Made:
    wanted = _good(random)
    return _sealed(random, wanted | {"config": {**wanted["config"], **random.choice(_FORBIDDEN)}}), 403


def _half_valid(random: Random, _now: datetime) -> Made:
    """Allowed keys, one of them with a value that no configuration may have."""
    wanted = _good(random)
    wanted["config"] = {**wanted["config"], **random.choice(_INVALID)}
    return _sealed(random, wanted), 400


def _hidden(random: Random, _now: datetime) -> Made:
    text = random.choice(["***", "rtsp://***@host/1", "http://host/v1?key=***"])
    return _sealed(random, _good(random, config={"describer": {"prompt": {"change": text}}})), 422


def _malformed(random: Random, _now: datetime) -> Made:
    wanted = _good(random)
    key = random.choice(["version", "mode", "config", "probation_s", "expires", "not_before", "keys", "signed"])
    value = random.choice([-1, 0, 1.5, True, [], {"a": 1}, "2026-01-01", 2**60, "", -(2**70)])
    if (key, value) in (("probation_s", 1.5), ("config", {"a": 1}), ("version", True)):
        value = "no"
    return _sealed(random, wanted | {key: value}), 400


def _ambiguous(random: Random, _now: datetime) -> Made:
    text = json.dumps(_good(random))
    return _sealed(
        random,
        random.choice(
            [
                text[:-1] + ',"version":7}',
                text[:-1] + ',"device":"other"}',
                text.replace('"config": {', '"config": {"profile": "movie", "profile": "sports", ', 1),
                text[:-1] + ',"probation_s":1e999}',
                text[:-1] + ',"probation_s":NaN}',
                text + text,
                "\ufeff" + text,
                text.replace('"box"', '"\\ud800"'),
                "1" * 5000,
            ]
        ),
    ), 400


def _broken(random: Random, _now: datetime) -> Made:
    whole = _sealed(random, _good(random))
    return random.choice(
        [
            whole[: random.randrange(1, len(whole) - 1)],
            whole + random.choice([b"x", b"{}", b"\0"]),
            random.randbytes(random.randint(1, 200)),
            b"\xff\xfe" + whole.decode().encode("utf-16-le"),
            b'"' * random.randint(1, 2000),
            b'"\\"' * random.randint(1, 2000),
            random.choice([b"null", b"[]", b"{}", b"0", b'""', b"\0"]),
            _envelope(random, v=random.choice([0, 2, "1", None, True, ...])),
            _envelope(random, id=random.choice([..., 1, "", "i" * 65, None, {}])),
            _envelope(random, signed=random.choice([..., 1, None, {}, ["x"]])),
            _envelope(random, extra=1),
        ]
    ), 400


_FORBIDDEN: list[dict[str, Any]] = [
    {"mqtt": {"url": "mqtt://unreachable.example"}},
    {"mqtt": {"password": f"file:/etc/{SECRET}"}},
    {"mqtt": {"user": None}},
    {"remote": {"require_signature": False}},
    {"remote": {"keys": "/tmp/keys"}},
    {"model": "/tmp/model"},
    {"events": {"dir": "/"}},
    {"events": {"retention": {"days": 0.1}}},
    {"cameras": {"front": {"source": f"rtsp://me:{SECRET}@host/1"}}},
    {"cameras": {"spy": {"source": "/dev/video0"}}},
    {"cameras": {"front": {"credentials": "file:/etc/shadow"}}},
    {"cameras": {"front": {"masks": {"street": None}}}},
    {"cameras": []},
    {"describer": {"url": f"http://me:{SECRET}@evil.example/v1", "model": "x"}},
    {"device": {"id": "other"}},
    {"metrics": {"port": 80}},
    {"limits": {"memory_mb": 100}},
    {"": {"": 1}},
    {"cameras.front.fps": 1},
    {"__proto__": {"profile": "x"}},
]
_INVALID: list[dict[str, Any]] = [
    {"profile": "nonsense"},
    {"profile": 1},
    {"fidelity_floor": 7},
    {"fidelity_floor": "high"},
    {"cameras": {"front": {"fps": -1}}},
    {"cameras": {"front": {"zones": {"a": [[0, 0], [1, 1]]}}}},
    {"cameras": {"front": {"zones": {"no such/name": [[0, 0], [9, 0], [9, 9]]}}}},
    {"cameras": {"front": {"zones": 5}}},
    {"cameras": {"ghost": {"fps": 5}}},
    {"device": {"name": ""}},
    {"describer": {"per_hour": 5}},
]
KINDS: dict[str, Callable[[Random, datetime], Made]] = {
    "unsigned": _unsigned,
    "wrong key": _wrong_key,
    "named for another key": _named_for_another,
    "tampered": _tampered,
    "tampered signature": _tampered_signature,
    "signature of another": _signature_of_another,
    "strange signature": _strange_signature,
    "replayed": _replayed,
    "replayed, still running": _replayed_now,
    "other under a used version": _other_under_a_used_version,
    "other base": _other_base,
    "downgrade": _downgrade,
    "too large": _too_large,
    "too deep": _too_deep,
    "wrong box": _wrong_box,
    "unbound": _unbound,
    "expired": _expired,
    "forbidden": _forbidden,
    "half forbidden": _half_forbidden,
    "half valid": _half_valid,
    "hidden": _hidden,
    "malformed": _malformed,
    "ambiguous": _ambiguous,
    "broken": _broken,
}
