"""Secret files, and the identity of a peer. (shell)"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from air.base.errors import ConfigError
from air.base.peer_id import PeerId
from air.base.private_key import PrivateKey
from air.base.public_key import KeyType, PublicKey

__all__ = [
    "SECRET_BYTES_MAX",
    "Identity",
    "create_secret",
    "read_secret",
    "replace_secret",
]

SECRET_BYTES_MAX: Final = 64 * 1024
"""A secret file longer than this is not a secret file."""


class Identity:
    """Who a peer is: a key pair and the name made of it."""

    __slots__ = ("_key", "peer_id", "public_key")

    peer_id: PeerId
    """``12D3Koo…``, the name other peers know this one by."""
    public_key: PublicKey

    def __init__(self, key: bytes | PrivateKey) -> None:
        """``key``, or the 32-byte seed of an Ed25519 one. Raises ConfigError ``identity.bad-key``."""
        if not isinstance(key, PrivateKey):
            if len(key) != 32:
                raise ConfigError(f"an Ed25519 seed has 32 bytes, not {len(key)}", code="identity.bad-key")
            key = PrivateKey(KeyType.ED25519, bytes(key))
        self._key = key
        self.public_key = key.public
        self.peer_id = PeerId.of(key.public)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    @property
    def public_bytes(self) -> bytes:
        """The raw public key; 32 bytes for Ed25519, see :class:`PublicKey` for the others."""
        return self.public_key.data

    @classmethod
    def generate(cls, type: KeyType = KeyType.ED25519) -> Identity:
        """A new identity from the operating system's randomness."""
        return cls(PrivateKey.generate(type))

    @classmethod
    def from_bytes(cls, data: bytes) -> Identity:
        """Read what :meth:`to_bytes` wrote. Raises ConfigError ``identity.bad-key``."""
        return cls(PrivateKey.from_bytes(data))

    def to_bytes(self) -> bytes:
        """The libp2p PrivateKey message, as go-libp2p and js-libp2p keep it. It is secret."""
        return self._key.to_bytes()

    @classmethod
    def load_or_create(cls, path: str | os.PathLike[str]) -> Identity:
        """The identity kept in the file ``path``, made at the first call.

        The file holds the base64 of :meth:`to_bytes` and has mode 0600. Two processes that create it at
        the same moment end with the same identity. Raises ConfigError when the file is readable by
        others (``secret.mode``), unreadable (``secret.unreadable``) or no key (``identity.bad-key``), or
        cannot be made (``secret.unwritable``).
        """
        path = Path(path)
        try:
            if not path.exists():
                identity = cls.generate()
                if create_secret(path, base64.b64encode(identity.to_bytes()) + b"\n"):
                    return identity
        except OSError as error:
            raise ConfigError(
                f"cannot make the secret file {path}: {error.strerror}", code="secret.unwritable"
            ) from None
        try:
            data = base64.b64decode(read_secret(path).strip(), validate=True)
            return cls.from_bytes(data)
        except ValueError:
            raise ConfigError(f"{path} holds no identity", code="identity.bad-key") from None

    def sign(self, message: bytes) -> bytes:
        """The signature of ``message``, 64 bytes from an Ed25519 key."""
        return self._key.sign(message)


def read_secret(path: str | os.PathLike[str]) -> bytes:
    """The content of a file that only its owner may read.

    Raises ConfigError ``secret.mode`` when group or others have any right to it, and
    ``secret.unreadable`` when it is missing, not an ordinary file, or longer than SECRET_BYTES_MAX.
    """
    path = Path(path)
    try:
        # Not waiting: a named pipe in the place of a secret would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"cannot read the secret file {path}: {error.strerror}", code="secret.unreadable"
        ) from None
    try:
        # The open file is asked, not the name: the name may be given to another file meanwhile.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > SECRET_BYTES_MAX:
            raise ConfigError(f"{path} is not a secret file", code="secret.unreadable")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"others can read the secret file {path} (mode {mode:04o}): chmod 600 {path}",
                code="secret.mode",
            )
        return os.read(descriptor, SECRET_BYTES_MAX)
    finally:
        os.close(descriptor)


def create_secret(path: str | os.PathLike[str], data: bytes) -> bool:
    """Make a secret file, whole or not at all. Returns False when one exists already."""
    path = Path(path)
    temporary = _write_beside(path, data)
    try:
        # A hard link fails when the name is taken, where a rename would replace the other's secret.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    _sync_folder(path.parent)
    return True


def replace_secret(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a secret file, in place of an older one if there is one."""
    path = Path(path)
    temporary = _write_beside(path, data)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink()
        raise
    _sync_folder(path.parent)


def _write_beside(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        # A full disk would otherwise collect pieces of secrets.
        temporary.unlink()
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
