"""S3's answers: XML bodies, headers and errors."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from xml.sax.saxutils import escape

from sandyard_api.storage.files import StoredObject

XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
STATUS: Mapping[str, int] = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "BadDigest": 400,
    "EntityTooLarge": 400,
    "ExpiredToken": 400,
    "IncompleteBody": 400,
    "InvalidArgument": 400,
    "InvalidRequest": 400,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "RequestTimeTooSkewed": 403,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "XAmzContentSHA256Mismatch": 400,
}
"""HTTP status of S3's error codes. *Source:* Amazon S3 API reference, error responses."""


class StorageError(Exception):
    """An error in S3's form."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def body(self) -> bytes:
        """As XML."""
        return document("Error", f"{_element('Code', self.code)}{_element('Message', str(self))}", namespace=False)


def document(root: str, content: str, *, namespace: bool = True) -> bytes:
    """A whole XML document."""
    opening = f'<{root} xmlns="{XMLNS}">' if namespace else f"<{root}>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opening}{content}</{root}>'.encode()


def listing(bucket: str, prefix: str, delimiter: str, objects: Iterable[StoredObject], *, max_keys: int) -> bytes:
    """`ListBucketResult` of the objects, folded at the delimiter."""
    contents, folded = [], {}
    for found in objects:
        if not found.key.startswith(prefix):
            continue
        head, _, rest = found.key[len(prefix) :].partition(delimiter) if delimiter else (found.key, "", "")
        if delimiter and rest:
            folded[f"{prefix}{head}{delimiter}"] = True
        else:
            contents.append(found)
    everything = len(contents) + len(folded)
    shown = contents[:max_keys]
    common = list(folded)[: max_keys - len(shown)]
    parts = [
        _element("Name", bucket),
        _element("Prefix", prefix),
        _element("KeyCount", str(len(shown) + len(common))),
        _element("MaxKeys", str(max_keys)),
        _element("IsTruncated", "true" if everything > len(shown) + len(common) else "false"),
        *(_contents(found) for found in shown),
        *(f"<CommonPrefixes>{_element('Prefix', name)}</CommonPrefixes>" for name in common),
    ]
    return document("ListBucketResult", "".join(parts))


def location(region: str) -> bytes:
    """`LocationConstraint`."""
    return document("LocationConstraint", escape(region))


def upload_begun(bucket: str, key: str, upload_id: str) -> bytes:
    """`InitiateMultipartUploadResult`."""
    content = _element("Bucket", bucket) + _element("Key", key) + _element("UploadId", upload_id)
    return document("InitiateMultipartUploadResult", content)


def upload_completed(bucket: str, key: str, etag: str) -> bytes:
    """`CompleteMultipartUploadResult`."""
    content = _element("Location", f"/{bucket}/{key}") + _element("Bucket", bucket)
    return document("CompleteMultipartUploadResult", content + _element("Key", key) + _element("ETag", f'"{etag}"'))


def object_headers(found: StoredObject) -> list[tuple[bytes, bytes]]:
    """What HEAD and GET say of an object."""
    return [
        (b"content-type", b"application/x-tar"),
        (b"content-length", str(found.size_bytes).encode()),
        (b"etag", f'"{found.etag}"'.encode()),
        (b"last-modified", formatdate(found.modified_at, usegmt=True).encode()),
    ]


def _contents(found: StoredObject) -> str:
    at = datetime.fromtimestamp(found.modified_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return (
        f"<Contents>{_element('Key', found.key)}{_element('LastModified', at)}"
        f"{_element('ETag', chr(34) + found.etag + chr(34))}{_element('Size', str(found.size_bytes))}"
        f"{_element('StorageClass', 'STANDARD')}</Contents>"
    )


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"
