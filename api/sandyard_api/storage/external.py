"""An object storage of somebody else, for build contexts. *Source:* Amazon S3 and STS API references."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http import HTTPStatus
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from sandyard.clock import Clock
from sandyard_api.errors import NotFound, Unavailable
from sandyard_api.storage.credentials import StorageCredentials
from sandyard_api.storage.s3_options import S3Options
from sandyard_api.storage.signature import SignedRequest, Signer, payload_hash, sign

CALL_SECONDS = 20.0
READ_BYTES = 1 << 18
MAX_ERROR_BYTES = 1 << 16
LIFETIME_SECONDS = 3600
CODE = re.compile(r"<Code>([^<]{1,100})</Code>")


class ExternalStorage:
    """Every method raises `Unavailable` with what to look at where the storage does not do as it is asked."""

    def __init__(self, options: S3Options, clock: Clock) -> None:
        self.options = options
        self._clock = clock

    async def check(self, organization_id: str) -> None:
        """Ask for a list of the organization's objects, which every client does as well or better."""
        query = {"list-type": "2", "max-keys": "1", "prefix": f"{organization_id}/"}
        async with AsyncExitStack() as stack:
            answer = await self._ask(stack, "GET", "", query=query)
            if answer.status != HTTPStatus.OK:
                raise await self._refusal(answer)

    async def exists(self, organization_id: str, context_hash: str) -> bool:
        """Whether there is a context of that hash."""
        async with AsyncExitStack() as stack:
            answer = await self._ask(stack, "HEAD", _key(organization_id, context_hash))
            if answer.status == HTTPStatus.NOT_FOUND:
                await self.check(organization_id)  # it may be the bucket that is missing
                return False
            if answer.status != HTTPStatus.OK:
                await self.check(organization_id)  # an answer to HEAD says no reason
                raise await self._refusal(answer)
            return True

    async def open(self, organization_id: str, context_hash: str) -> AsyncIterator[bytes]:
        """The content of a context, to be read to its end or closed. Raises `NotFound` as well."""
        async with AsyncExitStack() as stack:
            answer = await self._ask(stack, "GET", _key(organization_id, context_hash))
            if answer.status == HTTPStatus.NOT_FOUND and await _code(answer) != "NoSuchBucket":
                raise NotFound(f"Build context {context_hash[:128]} was not found in the object storage")
            if answer.status != HTTPStatus.OK:
                raise await self._refusal(answer)
            return _content(answer, stack.pop_all())

    async def credentials(self, organization_id: str) -> StorageCredentials:
        """What a client of that organization signs with: of the role for an hour, else the configured ones."""
        options = self.options
        if not options.role_arn:
            return StorageCredentials(options.access_key, options.secret_key, options.session_token)
        body = urlencode(
            {
                "Action": "AssumeRole",
                "Version": "2011-06-15",
                "RoleArn": options.role_arn,
                "RoleSessionName": f"sandyard-{organization_id}"[:64],
                "DurationSeconds": str(LIFETIME_SECONDS),
                "Policy": json.dumps(_policy(options.bucket, organization_id)),
            }
        ).encode()
        async with AsyncExitStack() as stack:
            answer = await self._ask(stack, "POST", None, body=body)
            text = (await answer.content.read(MAX_ERROR_BYTES)).decode(errors="replace")
            found = {name: _element(text, name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
            if answer.status != HTTPStatus.OK or not all(found.values()):
                reason = _element(text, "Code") or f"status {answer.status}"
                where = options.sts_endpoint or options.endpoint
                raise Unavailable(f"The role of SANDYARD_S3_ROLE_ARN cannot be assumed at {where}: {reason}")
        return StorageCredentials(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])

    async def _ask(
        self,
        stack: AsyncExitStack,
        method: str,
        key: str | None,
        *,
        query: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> aiohttp.ClientResponse:
        """A signed request for an object, for the bucket (an empty key), or to STS (`None`)."""
        options = self.options
        endpoint = options.endpoint if key is not None else options.sts_endpoint or options.endpoint
        path = "/" if key is None else "/" + quote(f"{options.bucket}/{key}".rstrip("/"), safe="/-_.~")
        encoded = urlencode(query or {}, quote_via=quote, safe="-_.~")
        headers = {"host": urlsplit(endpoint).netloc, "x-amz-content-sha256": payload_hash(body)}
        if key is None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        if options.session_token:
            headers["x-amz-security-token"] = options.session_token
        signer = Signer(options.access_key, options.secret_key, options.region, "s3" if key is not None else "sts")
        signed = sign(SignedRequest(method, path, encoded.encode(), headers), signer, self._clock.now())
        url = URL(f"{endpoint.rstrip('/')}{path}" + (f"?{encoded}" if encoded else ""), encoded=True)
        # The whole of a context may take long; what must not is waiting for the next piece.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS, sock_read=CALL_SECONDS)
        try:
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, auto_decompress=False))
            asking = session.request(method, url, headers=signed, data=body or None, allow_redirects=False)
            return await stack.enter_async_context(asking)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"The object storage at {endpoint} cannot be reached: {_words(error)}") from error

    async def _refusal(self, answer: aiohttp.ClientResponse) -> Unavailable:
        options, code = self.options, await _code(answer)
        if code == "NoSuchBucket" or (not code and answer.status == HTTPStatus.NOT_FOUND):
            return Unavailable(f"The object storage at {options.endpoint} has no bucket {options.bucket}")
        reason = code or f"status {answer.status}"
        if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return Unavailable(f"The object storage at {options.endpoint} refuses SANDYARD_S3_ACCESS_KEY: {reason}")
        return Unavailable(f"The object storage at {options.endpoint} answered: {reason}")


async def _content(answer: aiohttp.ClientResponse, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        async for chunk in answer.content.iter_chunked(READ_BYTES):
            yield chunk


async def _code(answer: aiohttp.ClientResponse) -> str:
    text = (await answer.content.read(MAX_ERROR_BYTES)).decode(errors="replace")
    match = CODE.search(text)
    return match[1] if match else ""


def _element(text: str, name: str) -> str:
    match = re.search(rf"<{name}>([^<]+)</{name}>", text)
    return match[1] if match else ""


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _key(organization_id: str, context_hash: str) -> str:
    return f"{organization_id}/{context_hash}/context.tar"


def _policy(bucket: str, organization_id: str) -> dict[str, object]:
    """What a client may do: look for, and bring, contexts of its own organization."""
    own = f"arn:aws:s3:::{bucket}/{organization_id}/*"
    multipart = ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    listing = {"StringLike": {"s3:prefix": [f"{organization_id}/*"]}}
    statements = [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", *multipart], "Resource": [own]},
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}"], "Condition": listing},
    ]
    return {"Version": "2012-10-17", "Statement": statements}
