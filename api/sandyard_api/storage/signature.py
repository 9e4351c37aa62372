"""Checking the signature of an S3 request and of its chunks. *Source:* AWS Signature Version 4."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

import msgspec

from sandyard.concealing import Concealing
from sandyard_api.storage.credentials import StorageGrant, StorageKeys, signing_key

ALGORITHM = "AWS4-HMAC-SHA256"
AUTHORIZATION = re.compile(
    rf"{ALGORITHM}\s+Credential=(?P<credential>[^,\s]+),\s*SignedHeaders=(?P<headers>[^,\s]+),\s*Signature=(?P<signature>\w+)"
)
MAX_SKEW = timedelta(minutes=15)
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"


class NotAuthorized(Exception):
    """No valid signature; `code` is S3's name for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SignedRequest(msgspec.Struct, frozen=True):
    """What a signature covers."""

    method: str
    path: str
    """As sent, percent-encoded."""
    query: bytes
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def payload(self) -> str:
        """The body's SHA-256 in hexadecimal, or a word for another way to check it."""
        return self.headers.get("x-amz-content-sha256", UNSIGNED)


class Signer(Concealing, frozen=True):
    """Who signs, and for what."""

    concealed = frozenset({"secret"})

    access_key: str
    secret: str
    region: str
    service: str


class Verified(msgspec.Struct, frozen=True):
    """A request whose signature is right, and what its chunks are signed with."""

    grant: StorageGrant
    signature: str
    key: bytes
    date: str
    scope: str

    def chunk_signature(self, before: str, chunk: bytes) -> str:
        """The signature of the chunk that follows one with the signature `before`."""
        digest = hashlib.sha256(chunk).hexdigest()
        text = "\n".join([f"{ALGORITHM}-PAYLOAD", self.date, self.scope, before, EMPTY_SHA256, digest])
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def payload_hash(body: bytes) -> str:
    """What the header `x-amz-content-sha256` says of a body."""
    return hashlib.sha256(body).hexdigest()


def sign(request: SignedRequest, signer: Signer, at: datetime) -> dict[str, str]:
    """The request's headers, all of them signed, with the signature and its time."""
    date = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = (date[:8], signer.region, signer.service, "aws4_request")
    headers = {**request.headers, "x-amz-date": date}
    names = sorted(headers)
    canonical = _canonical_request(SignedRequest(request.method, request.path, request.query, headers), names)
    text = "\n".join([ALGORITHM, date, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(signing_key(signer.secret, scope), text.encode(), hashlib.sha256).hexdigest()
    credential = f"{signer.access_key}/{'/'.join(scope)}"
    said = f"{ALGORITHM} Credential={credential}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return {**headers, "authorization": said}


def verify(request: SignedRequest, keys: StorageKeys, now: datetime, *, machine_now: datetime) -> Verified:
    """Raise `NotAuthorized` unless the request was signed with credentials of ours, just now.

    Credentials end by `now`; clients sign with the time of their machine, whatever users' time is.
    """
    match = AUTHORIZATION.fullmatch(request.headers.get("authorization", "").strip())
    if match is None:
        raise NotAuthorized("AccessDenied", "requests must be signed with the credentials of push-access")
    access_key, _, scope = match["credential"].partition("/")
    grant = keys.open(request.headers.get("x-amz-security-token", ""), now)
    if grant is None or not hmac.compare_digest(grant.access_key, access_key):
        raise NotAuthorized("ExpiredToken", "the credentials are not valid any more; ask for push-access again")
    date = request.headers.get("x-amz-date", "")
    parts = tuple(scope.split("/"))
    if len(parts) != 4 or parts[3] != "aws4_request" or not date.startswith(parts[0]):
        raise NotAuthorized("AuthorizationHeaderMalformed", "the credential's scope is malformed")
    _check_time(date, machine_now)
    names = match["headers"].split(";")
    if "host" not in names:
        raise NotAuthorized("AuthorizationHeaderMalformed", "the Host header must be signed")
    canonical = _canonical_request(request, names)
    text = "\n".join([ALGORITHM, date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = signing_key(grant.secret, parts)
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, match["signature"]):
        raise NotAuthorized("SignatureDoesNotMatch", "the request's signature is not the one that we calculate")
    return Verified(grant, expected, key, date, scope)


def _check_time(date: str, now: datetime) -> None:
    try:
        at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise NotAuthorized("AccessDenied", "x-amz-date is missing or malformed") from error
    if abs(now - at) > MAX_SKEW:
        raise NotAuthorized("RequestTimeTooSkewed", "the client's clock differs from ours by more than 15 minutes")


def _canonical_request(request: SignedRequest, names: list[str]) -> str:
    pairs = parse_qsl(request.query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    query = "&".join(f"{name}={value}" for name, value in encoded)
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    return "\n".join([request.method, request.path, query, headers, ";".join(names), request.payload])
