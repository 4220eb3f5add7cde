"""Which broker, and how to get in."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from config.errors import ConfigError
from config.redact import redact
from config.settings import Mqtt
from config.values import SecretReference

_SCHEMES = {"mqtt": (1883, False), "mqtts": (8883, True)}
_VERSIONS = ("auto", "5", "3.1.1")
_REFERENCES = ("file:", "env:", "credential:")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker and our credentials for it. `str()` is safe to show."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    protocol: str = "auto"
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, mqtt: Mqtt) -> BrokerAddress:
        """The broker of a configuration, with its secrets read. Raises ConfigError."""
        user = mqtt.user
        if user is not None and user.startswith(_REFERENCES):
            user = SecretReference(user).read()
        return cls.parse(
            mqtt.url,
            user=user,
            password=None if mqtt.password is None else mqtt.password.read(),
            ca_file=mqtt.ca,
            protocol=mqtt.protocol,
            certificate=mqtt.certificate,
            key=None if mqtt.key is None else mqtt.key.file(),
        )

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        ca_file: Path | None = None,
        protocol: str = "auto",
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> BrokerAddress:
        """`mqtt[s]://[user[:password]@]host[:port]`; `user` and `password` win over those in the URL. ca_file: PEM of
        the authority that signed the broker's certificate, None = those of the system. protocol: `5`, `3.1.1` or `auto`
        (5, and 3.1.1 where the broker doesn't speak it). certificate, key: PEM files by which the broker knows us.
        Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"mqtt.url: {redact(url)!r} is not a URL: {error}") from None
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ConfigError(f"mqtt.url: expected mqtt://host[:port] or mqtts://host[:port], found {redact(url)!r}")
        if protocol not in _VERSIONS:
            raise ConfigError(f"mqtt.protocol: expected one of {', '.join(_VERSIONS)}, found {protocol!r}")
        if ca_file is not None and not ca_file.is_file():
            raise ConfigError(f"mqtt.ca: {ca_file} is not a file; expected a PEM certificate")
        default_port, tls = _SCHEMES[parts.scheme]
        if user is None and parts.username:
            user = unquote(parts.username)
        if password is None and parts.password:
            password = unquote(parts.password)
        if password is not None and user is None:
            raise ConfigError("mqtt.password: a password needs a user; set mqtt.user too")
        if key is not None and certificate is None:
            raise ConfigError("mqtt.key: a key needs its certificate; set mqtt.certificate too")
        if certificate is not None and not tls:
            raise ConfigError("mqtt.certificate: only a broker behind mqtts:// can ask for one")
        return cls(parts.hostname, port or default_port, tls, user, password, ca_file, protocol, certificate, key)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext:
        """Checks the broker's certificate and name, and shows ours where there is one. Raises ConfigError for files
        that hold none."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"mqtt.ca: {self.ca_file}: no certificate can be read: {error}") from None
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (OSError, ssl.SSLError, ConfigError) as error:
                place = self.certificate if self.key is None else f"{self.certificate} with {self.key}"
                raise ConfigError(
                    f"mqtt.certificate: {place}: no certificate with its key can be read: {error}"
                ) from None
        return context


def _no_password() -> str:
    """Else OpenSSL would ask at the terminal, and wait."""
    raise ConfigError("the key is protected by a passphrase; store it without one")
