"""What is told of an external object storage."""

from sandyard.concealing import Concealing


class S3Options(Concealing, frozen=True):
    """Where an external storage is, and how to speak to it."""

    concealed = frozenset({"secret_key", "session_token"})

    endpoint: str
    """`http(s)://host[:port]`; buckets are addressed by path."""
    bucket: str
    region: str
    access_key: str
    secret_key: str
    session_token: str = ""
    role_arn: str = ""
    """Clients get credentials of this role, limited to their organization's objects; empty: the ones above."""
    sts_endpoint: str = ""
    """Where roles are assumed; empty: at the endpoint itself, as MinIO has it."""
