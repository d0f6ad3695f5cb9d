"""Secret files, and the Ed25519 identity of a peer. (shell)

``cryptography`` is imported where it is used: the command-line client reads its token through this
module and must not wait 40 ms for a library it never calls.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from air.base.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "SECRET_BYTES_MAX",
    "Identity",
    "base58",
    "create_secret",
    "peer_id_of",
    "read_secret",
    "replace_secret",
]

SECRET_BYTES_MAX: Final = 64 * 1024
"""A secret file longer than this is not a secret file."""

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

# The libp2p PublicKey message: field 1 = key type 1 (Ed25519), field 2 = 32 bytes. Short keys are not
# hashed: the multihash is "identity" (0x00) with the 36 bytes of the message themselves.
_PUBLIC_KEY: Final = bytes.fromhex("08011220")
_MULTIHASH: Final = bytes.fromhex("0024")
_PRIVATE_KEY: Final = bytes.fromhex("08011240")


def base58(data: bytes) -> str:
    """``data`` in base58 as Bitcoin writes it (multibase ``base58btc`` without its prefix letter)."""
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def peer_id_of(public: bytes) -> str:
    """The peer id ``12D3Koo…`` of a raw 32-byte Ed25519 public key. Source: libp2p peer-ids."""
    return base58(_MULTIHASH + _PUBLIC_KEY + public)


class Identity:
    """Who a peer is: an Ed25519 key pair. The private half never leaves the object except into its file."""

    __slots__ = ("_key", "_seed", "peer_id", "public_bytes")

    public_bytes: bytes
    """The raw public key, 32 bytes."""
    peer_id: str
    """``12D3Koo…``, the name other peers know this one by."""

    def __init__(self, seed: bytes) -> None:
        """``seed`` is the 32-byte private key of RFC 8032. Raises ConfigError for another length."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        if len(seed) != 32:
            raise ConfigError(f"an Ed25519 seed has 32 bytes, not {len(seed)}", code="identity.bad-key")
        self._seed = bytes(seed)
        self._key: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(self._seed)
        self.public_bytes = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.peer_id = peer_id_of(self.public_bytes)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the operating system's randomness."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_bytes(cls, data: bytes) -> Identity:
        """Read what :meth:`to_bytes` wrote. Raises ConfigError ``identity.bad-key``."""
        if len(data) != 68 or not data.startswith(_PRIVATE_KEY):
            raise ConfigError("not a libp2p Ed25519 private key", code="identity.bad-key")
        identity = cls(data[4:36])
        if identity.public_bytes != data[36:]:
            raise ConfigError("the two halves of the key do not belong together", code="identity.bad-key")
        return identity

    def to_bytes(self) -> bytes:
        """The libp2p PrivateKey message, as go-libp2p and js-libp2p keep it. It is secret."""
        return _PRIVATE_KEY + self._seed + self.public_bytes

    @classmethod
    def load_or_create(cls, path: str | os.PathLike[str]) -> Identity:
        """The identity kept in the file ``path``, made at the first call.

        The file holds the base64 of :meth:`to_bytes` and has mode 0600. Two processes that create it at
        the same moment end with the same identity. Raises ConfigError when the file is readable by
        others (``secret.mode``), unreadable (``secret.unreadable``) or no key (``identity.bad-key``).
        """
        path = Path(path)
        if not path.exists():
            identity = cls.generate()
            if create_secret(path, base64.b64encode(identity.to_bytes()) + b"\n"):
                return identity
        try:
            data = base64.b64decode(read_secret(path).strip(), validate=True)
            return cls.from_bytes(data)
        except ValueError:
            raise ConfigError(f"{path} holds no identity", code="identity.bad-key") from None

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message``."""
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
    os.replace(_write_beside(path, data), path)
    _sync_folder(path.parent)


def _write_beside(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
