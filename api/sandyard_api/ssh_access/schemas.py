"""What clients see of SSH access."""

from datetime import datetime

import msgspec


class SshAccessMade(msgspec.Struct, rename="camel"):
    """A new token, shown this once, and the command that uses it."""

    id: str
    sandbox_id: str
    token: str
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    ssh_command: str


class SshAccessValidation(msgspec.Struct, rename="camel"):
    """Whether a token lets anybody in now; without a sandbox where it does not."""

    valid: bool
    sandbox_id: str
