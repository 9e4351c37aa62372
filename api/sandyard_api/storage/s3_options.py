"""What is told of an external object storage."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where an external storage is, and how to speak to it."""

    endpoint: str
    """`http(s)://host[:port]`; buckets are addressed by path."""
    bucket: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    role_arn: str = ""
    """Clients get credentials of this role, limited to their organization's objects; empty: the ones above."""
    sts_endpoint: str = ""
    """Where roles are assumed; empty: at the endpoint itself, as MinIO has it."""
