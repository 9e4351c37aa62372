"""What clients see of previews."""

import msgspec


class PreviewUrl(msgspec.Struct, rename="camel"):
    """Where a port is served, and the token for it."""

    sandbox_id: str
    url: str
    token: str


class SignedPreviewUrl(msgspec.Struct, rename="camel"):
    """A URL that opens a port by itself, until its token expires."""

    sandbox_id: str
    port: int
    token: str
    url: str


class PreviewWarning(msgspec.Struct):
    """Whether browsers see a page that warns of foreign content first."""

    enabled: bool
