"""`stillwatch config keygen | sign | push | status | rollback`: a configuration from afar, from the operator's desk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KeyFile = Annotated[Path | None, typer.Option("--key", help="File with the private key.")]
KidName = Annotated[str | None, typer.Option("--kid", help="Name of the key; without, that of its file.")]
Phrase = Annotated[str | None, typer.Option("--passphrase", help="Where it is: file:PATH or env:NAME.")]
AgentFile = Annotated[Path | None, typer.Option("--config", help="The agent's file: for broker, root and device.")]
Broker = Annotated[str | None, typer.Option("--broker", help="mqtt[s]://HOST:PORT, instead of that of --config.")]
Device = Annotated[str | None, typer.Option("--device", help="Id of the box, instead of that of --config.")]
Root = Annotated[str | None, typer.Option("--root", help="First level of the topics, if it is not `stillwatch`.")]
User = Annotated[str | None, typer.Option("--user", help="Our name at the broker.")]
Password = Annotated[str | None, typer.Option("--password", help="Where ours is: file:PATH or env:NAME.")]
Authority = Annotated[Path | None, typer.Option("--ca", help="PEM of the authority of the broker's certificate.")]
Probation = Annotated[float, typer.Option("--probation", min=1, max=3600, help="Seconds to prove itself.")]
Expires = Annotated[str | None, typer.Option(help="Not to be taken from then on: 2026-03-14T06:00:00Z.")]
NotBefore = Annotated[str | None, typer.Option("--not-before", help="To be applied then: 2026-03-14T06:00:00Z.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is applied or not; status 1 when it is not.")]
Timeout = Annotated[float | None, typer.Option(min=1, help="With --wait: so many seconds at most.")]
_KEY_OR_NOT = "give --key, or --unsigned for a box that asks for no signature"


def register(app: typer.Typer) -> None:
    """Add the commands to `stillwatch config`."""
    for command in (keygen, sign, push, status, rollback):
        app.command(command.__name__)(command)


def keygen(file: Path, kid: KidName = None, passphrase: Phrase = None) -> None:
    """Make a private key in FILE, and print the line that goes into a box's file of keys."""
    from agent.remote.arguments import key_name, secret
    from agent.remote.signing import make_key, public_line

    name = key_name(file, kid)
    typer.echo(public_line(make_key(file, secret(passphrase)), name))
    typer.echo(f"{file}: the private key; keep it where only who may configure can read it", err=True)


def sign(
    file: Path,
    key: Annotated[Path, typer.Option("--key", help="File with the private key.")],
    version: Annotated[int, typer.Option(min=1, help="Above the last one that the box took.")],
    device: Annotated[str | None, typer.Option(help="For the box of this id.")] = None,
    group: Annotated[str | None, typer.Option(help="For all boxes of this group.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Drop all that was sent before.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Say what it would do, and do nothing.")] = False,
    base_version: Annotated[int | None, typer.Option(min=0, help="Only where exactly this one is applied.")] = None,
    allow_downgrade: Annotated[bool, typer.Option("--allow-downgrade", help="Take a lower version.")] = False,
    probation: Probation = 60.0,
    expires: Expires = None,
    not_before: NotBefore = None,
    kid: KidName = None,
    passphrase: Phrase = None,
    out: Annotated[Path | None, typer.Option(help="Write it here, not to stdout.")] = None,
) -> None:
    """Sign the keys in FILE (YAML or JSON, as in a configuration file) for a box or a group, to be pushed later."""
    from agent.remote import arguments
    from config.document import read_yaml
    from config.errors import ConfigError

    document = arguments.document_of(
        version=version,
        config=read_yaml(file).data,
        **arguments.mode(replace, check),
        device=device,
        group=group,
        base_version=base_version,
        allow_downgrade=allow_downgrade,
        probation_s=probation,
        expires=arguments.time_of(expires),
        not_before=arguments.time_of(not_before),
    )
    payload = arguments.sealed(document, key, kid, passphrase)
    if out is None:
        typer.echo(payload.decode())
        return
    try:
        out.write_bytes(payload + b"\n")
    except OSError as error:
        raise ConfigError(f"--out {out}: can't be written: {error.strerror}") from None


def push(
    file: Path,
    key: KeyFile = None,
    config: AgentFile = None,
    broker: Broker = None,
    device: Device = None,
    root: Root = None,
    user: User = None,
    password: Password = None,
    ca: Authority = None,
    check: Annotated[bool, typer.Option("--check", help="Ask what it would do; nothing is changed.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop all that was sent before.")] = False,
    version: Annotated[int | None, typer.Option(min=1, help="Without, one above the last.")] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="For a box that asks for no signature.")] = False,
    probation: Probation = 60.0,
    expires: Expires = None,
    not_before: NotBefore = None,
    kid: KidName = None,
    passphrase: Phrase = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Send the keys in FILE to a box: signed here with --key, or a document that `sign` has written, as it is."""
    from agent.remote import arguments, sending
    from agent.remote.operating import Operator
    from config.document import read_yaml

    payload = arguments.sealed_in(file)
    if payload is None and (key is None) != unsigned:
        raise typer.BadParameter(_KEY_OR_NOT, param_hint="--key")
    if payload is not None and (key, check, replace, version) != (None, False, False, None):
        raise typer.BadParameter(f"{file} is signed: it can only be sent as it is", param_hint="FILE")
    values = {} if payload is not None else read_yaml(file).data
    address, topics = arguments.target(config, broker, device, root, user, password, ca)
    with Operator(address, topics) as operator:
        if payload is None:
            document = arguments.document_of(
                version=version or sending.next_version(operator),
                config=values,
                **arguments.mode(replace, check),
                device=topics.device,
                probation_s=probation,
                expires=arguments.time_of(expires),
                not_before=arguments.time_of(not_before),
            )
            payload = arguments.sealed(document, key, kid, passphrase)
        else:
            document = arguments.opened(payload)
        sending.send(operator, payload, document, wait=wait, timeout=timeout)


def status(
    config: AgentFile = None,
    broker: Broker = None,
    device: Device = None,
    root: Root = None,
    user: User = None,
    password: Password = None,
    ca: Authority = None,
    as_json: Annotated[bool, typer.Option("--json", help="The box's report, as it is.")] = False,
) -> None:
    """Say what runs on a box, what became of the last document, and which one waits for it."""
    from agent.remote import arguments, sending
    from agent.remote.operating import Operator

    with Operator(*arguments.target(config, broker, device, root, user, password, ca)) as operator:
        report = sending.report_of(operator)
        typer.echo(report.model_dump_json(indent=2) if as_json else "\n".join(sending.status_lines(operator, report)))


def rollback(
    key: KeyFile = None,
    config: AgentFile = None,
    broker: Broker = None,
    device: Device = None,
    root: Root = None,
    user: User = None,
    password: Password = None,
    ca: Authority = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="For a box that asks for no signature.")] = False,
    probation: Probation = 60.0,
    kid: KidName = None,
    passphrase: Phrase = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before signing.")] = False,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Send what a box ran before once more, as a new version; first shown, for it comes from the broker."""
    from agent.remote import arguments, sending
    from agent.remote.operating import Operator
    from config.errors import ConfigError

    if (key is None) != unsigned:
        raise typer.BadParameter(_KEY_OR_NOT, param_hint="--key")
    address, topics = arguments.target(config, broker, device, root, user, password, ca)
    with Operator(address, topics) as operator:
        report = sending.report_of(operator)
        if report.previous is None:
            raise ConfigError(f"{topics.device} does not know what it ran before version {report.running.version}")
        typer.echo(f"now     version {report.running.version}: {sending.shown(report.running.config)}")
        typer.echo(f"before  version {report.previous.version}: {sending.shown(report.previous.config)}")
        if not yes:
            typer.confirm("Send the latter as a new version?", abort=True)
        document = arguments.document_of(
            version=sending.next_version(operator),
            base_version=report.running.version,
            mode="replace",
            config=report.previous.config,
            device=topics.device,
            probation_s=probation,
        )
        payload = arguments.sealed(document, key, kid, passphrase)
        sending.send(operator, payload, document, wait=wait, timeout=timeout)
