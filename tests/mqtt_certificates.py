"""Certificates for a test: an authority of our own, and what it has signed."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Makes `ca.pem` in the folder, and signs what is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl("req", "-x509", *_new(self._key), "-subj", "/CN=test authority", "-out", str(self.certificate))

    def sign(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) for this name; a server's is good for localhost."""
        certificate, key, request = (self._folder / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        _openssl("req", *_new(key), "-subj", f"/CN={name}", "-out", str(request))
        names = self._folder / "names"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signer = ("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial")
        _openssl(
            "x509", "-req", "-in", str(request), *signer, "-days", "2", "-extfile", str(names), "-out", str(certificate)
        )
        return certificate, key


def _new(key: Path) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key))


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
