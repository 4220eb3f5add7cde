"""`cmd/rules`: see, set and remove the rules of a camera while the agent runs; and where they stand."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from agent.camera import Camera
from agent.commanding import camera_of
from agent.events.model import CameraRulesState, RuleStatus, Severity
from agent.mqtt.commands import Command, CommandError
from agent.rules.attendant import Attendant
from agent.rules.book import RuleBook
from config.errors import ConfigError
from config.settings import Rule

_ACTIONS = ("list", "set", "remove", "reset")


class RuleCommands:
    """The handler of `cmd/rules` for these cameras."""

    def __init__(self, cameras: Mapping[str, Camera], book: RuleBook, device: str) -> None:
        self._cameras, self._book, self._device = cameras, book, device

    def rules(self, command: Command) -> Mapping[str, JsonValue]:
        """`camera`, `action: list | set | remove | reset`, with `rule` (as in the configuration) or `name` → all rules
        of the camera. What was set is kept over restarts. Raises CommandError."""
        command.only("camera", "action", "rule", "name")
        camera = camera_of(self._cameras, command)
        action = command.text("action", "list")
        if action not in _ACTIONS:
            raise CommandError(f"rules: expected one of {', '.join(_ACTIONS)} for 'action', found {action!r:.80}")
        if (action == "set") != ("rule" in command.arguments) or (action == "remove") != ("name" in command.arguments):
            raise CommandError("rules: expected 'rule' with 'set', 'name' with 'remove', and neither with another")
        try:
            self._do(action, command, camera.name, camera.attendant)
        except OSError as error:
            raise CommandError(f"rules: it can't be kept: {error.strerror or error}") from None
        except ConfigError as error:
            raise CommandError(str(error)) from None
        return self.state(camera).model_dump(mode="json", exclude={"v", "device"})

    def state(self, camera: Camera) -> CameraRulesState:
        """What `<camera>/rules` shows."""
        attendant, by_command = camera.attendant, self._book.set_by_command(camera.name)
        return CameraRulesState(
            device=self._device,
            camera=camera.name,
            rules=tuple(
                RuleStatus(
                    name=state.rule.name,
                    ask=state.rule.ask,
                    zone=state.rule.zone,
                    threshold=state.rule.threshold,
                    severity=Severity(state.rule.severity),
                    source="command" if state.rule.name in by_command else "file",
                    watching=state.watching and not attendant.mute,
                    answer=None if state.probability is None else round(state.probability, 2),
                    alert=state.firing.on,
                )
                for state in attendant.rules.states
            ),
            degraded=(attendant.mute,) if attendant.mute else (),
        )

    def _do(self, action: str, command: Command, camera: str, attendant: Attendant) -> None:
        configured, zones = attendant.configured, attendant.zones
        if action == "reset":
            self._book.reset(camera)
            attendant.rules.replace(configured)
        elif action == "set":
            rule = _rule(command.arguments["rule"])
            attendant.rules.replace(self._book.put(camera, rule.name, rule, configured, zones))
        elif action == "remove":
            name = command.text("name")
            known = [state.rule.name for state in attendant.rules.states]
            if name not in known:
                raise CommandError(f"rules: no rule {name!r:.80}; known: {', '.join(known) or 'none'}")
            attendant.rules.replace(self._book.put(camera, name, None, configured, zones))


def _rule(value: JsonValue) -> Rule:
    """Raises CommandError that names the key."""
    try:
        return Rule.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in ("rule", *first["loc"]))
        found = "" if first["type"] in ("missing", "extra_forbidden") else f", found {first['input']!r:.80}"
        what = {"missing": "missing", "extra_forbidden": "unknown key"}.get(first["type"], first["msg"])
        raise CommandError(f"rules: {place}: {what}{found}") from None
