"""How the commands reach a running Sandyard: the variables the SDKs read, else the data directory."""

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import click

from sandyard.keeping import is_held, read_running
from sandyard.settings import Settings

TIMEOUT_SECONDS = 30


class Client:
    """JSON over HTTP to one Sandyard."""

    def __init__(self, origin: str, key: str) -> None:
        self.origin = origin
        self.headers = {"Authorization": f"Bearer {key}", "X-Daytona-Source": "cli"}

    def get(self, path: str) -> Any:
        """The decoded answer. Raises `click.ClickException` with the server's own words."""
        return self.call("GET", path)

    def call(self, method: str, path: str, body: object = None, *, seconds: float = TIMEOUT_SECONDS) -> Any:
        """Send JSON, if any, and decode the answer's, or its text. Raises `click.ClickException`."""
        data = None if body is None else json.dumps(body).encode()
        headers = self.headers | ({"Content-Type": "application/json"} if data is not None else {})
        request = Request(self.origin + path, data, headers, method=method)  # noqa: S310  the origin is http or https
        try:
            with urlopen(request, timeout=seconds) as answer:  # noqa: S310
                told = answer.read()
                is_json = answer.headers.get_content_type() == "application/json"
                return json.loads(told) if is_json and told else told.decode()
        except HTTPError as error:
            raise click.ClickException(_message(error)) from error
        except (URLError, TimeoutError) as error:
            raise click.ClickException(f"{self.origin} does not answer: {error}") from error


def _message(error: HTTPError) -> str:
    with error:  # its answer is open; since Python 3.14 one that is forgotten is a ResourceWarning
        try:
            return str(json.load(error)["message"])
        except (ValueError, KeyError, TypeError):
            return f"{error.code} {error.reason}"


def find(settings: Settings) -> Client:
    """The Sandyard that `DAYTONA_API_URL` and `_KEY` name, else the one running on the data directory."""
    url, key = os.environ.get("DAYTONA_API_URL"), os.environ.get("DAYTONA_API_KEY")
    if url and key and url.startswith(("http://", "https://")):
        return Client(url.rstrip("/").removesuffix("/api"), key)
    running = read_running(settings.data_dir)
    if running is None or not is_held(settings.data_dir):
        raise click.ClickException("no Sandyard is running here; start one with `sandyard up`")
    own_key = settings.api_key or (settings.data_dir / "api-key").read_text(encoding="ascii").strip()
    return Client(running.url, own_key)
