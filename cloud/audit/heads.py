"""Tree heads: what the log looked like at a moment, signed, so that it cannot say something else later.

A head is written as a checkpoint of the C2SP ``tlog-checkpoint`` and ``signed-note`` forms, which the witnesses and
tools of other transparency logs read as well:

```
citybrain/audit/5f2c...           origin: whose log this is
1284                              size
kZ2k...=                          root, base64
time 1772400000123                ours: milliseconds since 1970
previous 9jvX...=                 ours: SHA-256 of the whole note before this one; absent in the first

— citybrain/audit/5f2c... AbCd...=   Ed25519 over everything above the empty line
```
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from protocols.core.errors import ConfigError, ContractError

_ED25519 = b"\x01"  # signature type of signed-note
_DASH = "\u2014 "
KEY_FILE, PUBLIC_FILE, HEADS_FILE = "audit.key", "audit.pub", "audit-heads.txt"


@dataclass(frozen=True, slots=True)
class Head:
    origin: str
    size: int
    root: bytes
    at_ms: int
    previous: bytes | None  # SHA-256 of the note before

    def text(self) -> str:
        """What is signed."""
        lines = [self.origin, str(self.size), _b64(self.root), f"time {self.at_ms}"]
        if self.previous is not None:
            lines.append(f"previous {_b64(self.previous)}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public half: ``name+hash+key``, as signed-note writes it. Give it to whoever shall check the log."""

    name: str
    key: Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Raises ConfigError."""
        name, _, rest = text.strip().partition("+")
        hash_hex, _, coded = rest.partition("+")
        try:
            data = base64.b64decode(coded, validate=True)
            if data[:1] != _ED25519:
                raise ValueError("not an Ed25519 key")
            key = Ed25519PublicKey.from_public_bytes(data[1:])
        except (ValueError, binascii.Error) as error:
            raise ConfigError(f"{text[:80]!r} is not a key of the form name+hash+base64: {error}") from error
        if not name or hash_hex != _key_hash(name, key).hex():
            raise ConfigError(f"key {name!r}: its short hash does not belong to it")
        return cls(name, key)

    def __str__(self) -> str:
        return f"{self.name}+{_key_hash(self.name, self.key).hex()}+{_b64(_ED25519 + _raw(self.key))}"


@dataclass(frozen=True, slots=True)
class Signer:
    name: str
    key: Ed25519PrivateKey

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, self.key.public_key())

    def sign(self, size: int, root: bytes, at_ms: int, previous: str | None) -> str:
        """The note of a new head; ``previous`` is the note before it."""
        chained = None if previous is None else note_hash(previous)
        text = Head(self.name, size, root, at_ms, chained).text()
        signature = _key_hash(self.name, self.key.public_key()) + self.key.sign(text.encode())
        return f"{text}\n{_DASH}{self.name} {_b64(signature)}\n"


def note_hash(note: str) -> bytes:
    return hashlib.sha256(note.encode()).digest()


def read_head(note: str) -> Head:
    """What a note says, unchecked. Raises ContractError ``head``."""
    text = note.partition("\n\n")[0] + "\n"
    lines = text.split("\n")[:-1]
    try:
        origin, size, root = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
        at_ms = int(lines[3].removeprefix("time "))
        previous = base64.b64decode(lines[4].removeprefix("previous "), validate=True) if len(lines) == 5 else None
        head = Head(origin, size, root, at_ms, previous)
        if size < 0 or len(root) != 32 or head.text() != text:
            raise ValueError("not in its one form")
    except (ValueError, IndexError, binascii.Error) as error:
        raise ContractError(f"not a tree head of this log: {error}", reason="head") from error
    return head


def check(note: str, verifier: Verifier) -> Head:
    """The head a note holds, its signature good. Raises ContractError ``head`` or ``signature``."""
    head = read_head(note)
    text, _, rest = note.partition("\n\n")
    wanted = f"{_DASH}{verifier.name} "
    for line in rest.split("\n"):
        if line.startswith(wanted):
            try:
                data = base64.b64decode(line.removeprefix(wanted), validate=True)
                if data[:4] != _key_hash(verifier.name, verifier.key):
                    continue  # the same name, another key
                verifier.key.verify(data[4:], f"{text}\n".encode())
            except (InvalidSignature, ValueError, binascii.Error) as error:
                raise ContractError(f"head of size {head.size}: the signature is wrong", reason="signature") from error
            if head.origin != verifier.name:
                raise ContractError(f"a head of another log, {head.origin!r}", reason="signature")
            return head
    raise ContractError(f"head of size {head.size}: not signed by {verifier.name}", reason="signature")


def split_notes(text: str) -> list[str]:
    """The notes of a file that holds several, one after another, as :func:`append_note` writes them."""
    notes: list[str] = []
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        lines.append(line)
        if line.startswith(_DASH):
            notes.append("".join(lines).lstrip("\n"))
            lines = []
    if "".join(lines).strip():
        notes.append("".join(lines))  # cut short: read_head will say so
    return notes


def append_note(path: Path, note: str) -> None:
    """Durable on return; mode 0600."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(note.encode())
        file.flush()
        os.fsync(file.fileno())


def load_signer(state_dir: Path) -> Signer:
    """The log's key, made at the first start (mode 0600), and its public half beside it. Raises ConfigError.

    Several processes of one core share the folder; whoever comes second reads what the first has made."""
    path = state_dir / KEY_FILE
    state_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        fresh = path.with_name(f"{KEY_FILE}.{secrets.token_hex(4)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"citybrain/audit/{secrets.token_hex(4)} {_b64(raw)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # never over one that is there
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    try:
        name, coded = path.read_text(encoding="ascii").split()
        signer = Signer(name, Ed25519PrivateKey.from_private_bytes(base64.b64decode(coded, validate=True)))
    except (OSError, ValueError, binascii.Error) as error:
        raise ConfigError(f"{path}: not a key of the audit log ({type(error).__name__})") from error
    public = state_dir / PUBLIC_FILE
    if not public.exists():
        public.write_text(f"{signer.verifier}\n", encoding="ascii")
    return signer


def _key_hash(name: str, key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + _raw(key)).digest()[:4]


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
