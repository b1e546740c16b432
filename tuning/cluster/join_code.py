"""The join code: what is typed on another laptop to let it into the cluster.

Thirty letters and digits: the secret (105 bits), a digest of the versions that the head runs, and a checksum, by
which a mistyped code is known before anything is sent. The letters are Crockford's 32, without I, L, O and U.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from tuning.errors import ClusterError

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DIGEST_LENGTH = 5
_SECRET_LENGTH, _CHECK_LENGTH, _GROUP = 21, 4, 5
_LENGTH = _SECRET_LENGTH + DIGEST_LENGTH + _CHECK_LENGTH
_READ_AS = str.maketrans("OIL", "011")
"""What a person may take for another letter."""


@dataclass(frozen=True)
class JoinCode:
    """The secret of one cluster, and the digest of the versions that it runs; `str` is what a person types."""

    secret: str = field(repr=False)
    digest: str

    @classmethod
    def new(cls, digest: str) -> "JoinCode":
        """A code with a secret of its own."""
        return cls("".join(secrets.choice(LETTERS) for _ in range(_SECRET_LENGTH)), digest)

    @classmethod
    def parse(cls, text: str) -> "JoinCode":
        """The code that somebody typed; case, spaces and dashes do not matter.

        Raises:
            ClusterError: it is too short or too long, mistyped, or no code.
        """
        typed = re.sub(r"[\s\-–—_.]+", "", text).upper().translate(_READ_AS)
        if not typed:
            raise ClusterError("no join code was given; the laptop that started the cluster shows it")
        if set(typed) - set(LETTERS):
            raise ClusterError(f"that is no join code, which is {_LENGTH} letters and digits in groups of {_GROUP}")
        if len(typed) != _LENGTH:
            wrong = "too short" if len(typed) < _LENGTH else "too long"
            raise ClusterError(f"the join code is {wrong}: it has {_LENGTH} letters and digits, not {len(typed)}")
        body, check = typed[:-_CHECK_LENGTH], typed[-_CHECK_LENGTH:]
        if check != short_hash(body, _CHECK_LENGTH):
            raise ClusterError("the join code is mistyped: its last letters do not fit the others; type it again")
        return cls(body[:_SECRET_LENGTH], body[_SECRET_LENGTH:])

    @property
    def token(self) -> str:
        """The token by which the cluster's processes know each other."""
        return hashlib.sha256(f"token {self.secret}".encode()).hexdigest()

    def __str__(self) -> str:
        body = self.secret + self.digest
        typed = body + short_hash(body, _CHECK_LENGTH)
        return "-".join(typed[start : start + _GROUP] for start in range(0, _LENGTH, _GROUP))


def short_hash(text: str, length: int) -> str:
    """A hash of a text, as so many of the code's letters."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    return "".join(LETTERS[number >> 5 * place & 31] for place in range(length))
