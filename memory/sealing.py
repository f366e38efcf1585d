"""Optional encryption of what is remembered: contents, texts, digests and vectors, with a key kept elsewhere.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits a value; the additional data bind a content to
its hash. Sealed bytes begin with a mark and the key's id, so that a wrong key is told as such. The key is
named (`env:NAME`, `file:/path`) and never stored.

What is not hidden: which rows there are, their links, keys of items, times, sizes, and the SHA-256 of each
content, under which it is found again: it confirms a guess of the whole content, nothing less. Names of
items and short messages (errors, questions, events) are stored as they are.

With a key no words are stored: neither `search` nor `term` has rows, and the index in memory is built from
the opened texts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from .errors import ConfigError

#: the first bytes of what is sealed. JSON begins with none of them, nor does what zlib has compressed
MARK = b"\x01PS1"
#: how a sealed text begins
TEXT_MARK = "sealed:"

_KEY_ID = 8
_NONCE = 12
_MEND = "give the key that the database was written with: memory_key = env:NAME or file:/path"

_sealers: weakref.WeakKeyDictionary[Engine, Sealer] = weakref.WeakKeyDictionary()


class Sealer:
    """Seals and opens bytes with one key."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes.

        Raises:
            ConfigError: it has another length, or the package `cryptography` is not installed.
        """
        if len(key) != 32:
            raise ConfigError(
                f"the memory key has {len(key)} bytes, it needs 32",
                mend="make one: python -c 'import secrets; print(secrets.token_hex(32))'",
            )
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ModuleNotFoundError as error:
            raise ConfigError(
                "sealing needs the package cryptography", mend="pip install 'podium[sealed]'"
            ) from error
        self._cipher = AESGCM(key)
        #: which key it is, telling nothing of it
        self.key_id = hashlib.sha256(b"podium memory key" + key).digest()[:_KEY_ID]

    def seal(self, plain: bytes, about: bytes = b"") -> bytes:
        """Encrypt. `about` must be the same when it is opened: what the bytes belong to."""
        nonce = os.urandom(_NONCE)
        return MARK + self.key_id + nonce + self._cipher.encrypt(nonce, plain, about)

    def open(self, stored: bytes, about: bytes = b"") -> bytes:
        """Decrypt what `seal` made.

        Raises:
            ConfigError: it was sealed with another key.
            ValueError: the bytes are damaged.
        """
        from cryptography.exceptions import InvalidTag

        start = len(MARK) + _KEY_ID
        if (key_id := stored[len(MARK) : start]) != self.key_id:
            raise ConfigError(
                f"a content is sealed with the key {key_id.hex()}, the one given is {self.key_id.hex()}",
                mend=_MEND,
            )
        try:
            return self._cipher.decrypt(stored[start : start + _NONCE], stored[start + _NONCE :], about)
        except InvalidTag as error:
            raise ValueError("the sealed bytes are damaged") from error


def read_key(reference: str) -> bytes:
    """The 32 bytes that `env:NAME` or `file:/path` refers to, written as hex or base64.

    Raises:
        ConfigError: there is no such variable or file, or what it holds is no such key.
    """
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        text = os.environ.get(name)
        if text is None:
            raise ConfigError(f"the variable {name} with the memory key is not set", mend=f"export {name}=…")
    elif kind == "file" and name:
        try:
            text = Path(name).expanduser().read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the file {name} with the memory key cannot be read: {type(error).__name__}",
                mend="give a file with the key as hex or base64",
            ) from error
    else:
        raise ConfigError(
            "a memory key is given by reference, not itself", mend="memory_key = env:NAME or file:/path"
        )
    return _decoded(text.strip(), reference)


def _decoded(text: str, reference: str) -> bytes:
    try:
        key = (
            bytes.fromhex(text)
            if re.fullmatch(r"[0-9a-fA-F]{64}", text)
            else base64.b64decode(text, validate=True)
        )
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ConfigError(
            f"{reference} holds no key of 32 bytes as hex or base64",
            mend="make one: python -c 'import secrets; print(secrets.token_hex(32))'",
        )
    return key


def use(database: Any, reference: str | None) -> None:
    """From now on this `Database` seals what it writes with the key of a reference; None: it does not.

    What was written before stays as it is and is read all the same.

    Raises:
        ConfigError: as `read_key` and `Sealer`.
    """
    if reference is None:
        _sealers.pop(database.engine, None)
    else:
        _sealers[database.engine] = Sealer(read_key(reference))


def is_sealed(connection: Connection) -> bool:
    """Whether what is written on this connection is sealed: then no words of it may be stored."""
    return connection.engine in _sealers


def seal_bytes(connection: Connection, plain: bytes, about: str) -> bytes:
    """Bytes as they are to be stored. `about`: what they belong to."""
    sealer = _sealers.get(connection.engine) if _sealers else None
    return plain if sealer is None else sealer.seal(plain, about.encode())


def open_bytes(connection: Connection, stored: bytes, about: str) -> bytes:
    """Bytes as they were before they were sealed; as they are if they were not.

    Raises:
        ConfigError: no key is given, or another one.
        ValueError: they are damaged.
    """
    if stored[:4] != MARK:
        return stored
    sealer = _sealers.get(connection.engine)
    if sealer is None:
        key_id = stored[len(MARK) : len(MARK) + _KEY_ID].hex()
        raise ConfigError(f"the content is sealed with the key {key_id}, and none is given", mend=_MEND)
    return sealer.open(bytes(stored), about.encode())


def seal_text(connection: Connection, text: str | None) -> str | None:
    """A text column as it is to be stored."""
    sealer = _sealers.get(connection.engine)
    if text is None or (sealer is None and not text.startswith(TEXT_MARK)):
        return text
    if sealer is None:  # a text that only looks as if it were sealed
        return TEXT_MARK + "plain:" + text
    return TEXT_MARK + base64.b64encode(sealer.seal(text.encode("utf-8", "surrogatepass"))).decode()


def open_text(connection: Connection, stored: str | None) -> str | None:
    """A text column as it was before it was sealed.

    Raises:
        ConfigError: no key is given, or another one, or the text is damaged.
    """
    if stored is None or not stored.startswith(TEXT_MARK):
        return stored
    body = stored.removeprefix(TEXT_MARK)
    if body.startswith("plain:"):
        return body.removeprefix("plain:")
    try:
        plain = open_bytes(connection, base64.b64decode(body, validate=True), "")
    except ValueError as error:
        raise ConfigError(
            "a sealed text is damaged",
            mend="restore the database from a backup; `podium db check` tells more",
        ) from error
    return plain.decode("utf-8", "surrogatepass")


def open_texts(connection: Connection, texts: Sequence[str | None]) -> list[str | None]:
    """`open_text` of several."""
    return [open_text(connection, text) for text in texts]
