"""What must be there for a request to get behind the 404: one live thing of each kind, made again when it is gone."""

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.contract.running import Instance
from tests.contract.toolbox import authorization
from tests.contract.wire_client import Body, request

STATE_SECONDS = 60.0

KINDS: Mapping[tuple[str, str], str] = {
    ("api-keys", "name"): "key",
    ("api-keys", "userId"): "user",
    ("organizations", "organizationId"): "organization",
    ("regions", "id"): "region",
    ("sandbox", "sandboxIdOrName"): "sandbox",
    ("sandbox", "sandboxId"): "sandbox",
    ("sandbox", "token"): "signed_token",
    ("preview", "sandboxId"): "sandbox",
    ("preview", "authToken"): "preview_token",
    ("preview", "signedPreviewToken"): "signed_token",
    ("snapshots", "id"): "snapshot",
    ("volumes", "volumeId"): "volume",
    ("volumes", "name"): "volume_name",
    ("warm-pools", "id"): "warm_pool",
    ("docker-registry", "id"): "registry",
    ("secret", "secretId"): "secret",
}
"""First segment of the path and name of the parameter, to the kind of thing that it names."""
PLAIN: Mapping[str, tuple[str, ...]] = {
    "port": ("1", "3000", "65535", "22222"),
    "interval": ("0", "1", "30", "2147483647"),
    "ttlMinutes": ("0", "1", "525600"),
    "isPublic": ("true", "false"),
}
"""Parameters that name nothing, and values that are right."""
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "sandbox": ("sandbox", "sandbox", "sandbox", "stopped_sandbox", "archived_sandbox", "sandbox_name"),
    "snapshot": ("snapshot", "inactive_snapshot"),
}
"""Other forms of a kind that do where it does."""
DEPENDENTS = {
    "sandbox": ("signed_token", "preview_token", "ssh_token", "sandbox_name"),
    "sandbox_name": ("sandbox", "signed_token", "preview_token", "ssh_token"),
    "volume": ("volume_name",),
    "secret": ("secret_name",),
}


@dataclass
class Seeds:
    """Makes what is asked for once and remembers it until it is told to forget."""

    sandyard: Instance
    _known: dict[str, str] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    def get(self, kind: str) -> str:
        """Id, name or token of a live one."""
        if kind not in self._known:
            self._known[kind] = str(self._makers()[kind]())
        return self._known[kind]

    def forget(self, kind: str) -> None:
        """The next one is a new one: this one may be gone."""
        for each in (kind, *DEPENDENTS.get(kind, ())):
            self._known.pop(each, None)

    def unused(self) -> str:
        """A name that nothing has."""
        return f"seed-{next(self._numbers)}"

    def _makers(self) -> dict[str, Callable[[], Any]]:
        return {
            "sandbox": self._forked,
            "sandbox_name": lambda: self._of_sandbox("GET", "")["name"],
            "stopped_sandbox": lambda: self._moved("stop"),
            "archived_sandbox": lambda: self._moved("stop", "archive"),
            "snapshot": self._snapshot,
            "snapshot_name": lambda: self._ask("GET", f"/snapshots/{self._snapshot()}")["name"],
            "inactive_snapshot": self._inactive_snapshot,
            "volume": lambda: self._make("/volumes", {"name": self.unused()})["id"],
            "volume_name": lambda: self._ask("GET", f"/volumes/{self.get('volume')}")["name"],
            "key": lambda: self._make("/api-keys", {"name": self.unused(), "permissions": ["write:sandboxes"]})["name"],
            "secret": lambda: self._make("/secret", {"name": self.unused(), "value": "x", "hosts": ["a.example"]})[
                "id"
            ],
            "secret_name": lambda: self._ask("GET", f"/secret/{self.get('secret')}")["name"],
            "registry": lambda: self._make("/docker-registry", REGISTRY | {"name": self.unused()})["id"],
            "warm_pool": self._warm_pool,
            "organization": lambda: self._ask("GET", "/organizations")[0]["id"],
            "user": lambda: self._ask("GET", "/users/me")["id"],
            "region": lambda: self._ask("GET", "/regions")[0]["id"],
            "preview_token": lambda: self._of_sandbox("GET", "/ports/3000/preview-url")["token"],
            "signed_token": lambda: self._of_sandbox("GET", "/ports/3000/signed-preview-url")["token"],
            "ssh_token": lambda: self._of_sandbox("POST", "/ssh-access")["token"],
        }

    def _forked(self) -> str:
        """One with a parent."""
        parent = self._settled(self._make("/sandbox", {"labels": {"made": "here"}})["id"], "started")
        return self._settled(self._make(f"/sandbox/{parent}/fork", {})["id"], "started")

    def _moved(self, *steps: str) -> str:
        sandbox_id = self._settled(str(self._make("/sandbox", {})["id"]), "started")
        for step in steps:
            self._make(f"/sandbox/{sandbox_id}/{step}", {})
            self._settled(sandbox_id, {"stop": "stopped", "archive": "archived"}[step])
        return sandbox_id

    def _settled(self, sandbox_id: str, state: str) -> str:
        self._until(f"/sandbox/{sandbox_id}", state)
        return sandbox_id

    def _snapshot(self) -> str:
        snapshot_id = str(self._make("/snapshots", {"name": self.unused(), "imageName": "debian:12"})["id"])
        self._until(f"/snapshots/{snapshot_id}", "active")
        return snapshot_id

    def _inactive_snapshot(self) -> str:
        snapshot_id = self._snapshot()
        self._ask("POST", f"/snapshots/{snapshot_id}/deactivate")
        return snapshot_id

    def _until(self, path: str, state: str) -> None:
        deadline = time.monotonic() + STATE_SECONDS
        while (seen := self._ask("GET", path)["state"]) != state:
            assert time.monotonic() < deadline, (path, seen, state)
            time.sleep(0.02)  # what is waited for is in another process

    def _warm_pool(self) -> str:
        there: list[dict[str, str]] = self._ask("GET", "/warm-pools")
        made = there or [self._make("/warm-pools", {"snapshot": "sandyard-default", "pool": 1})]
        return made[-1]["id"]

    def _of_sandbox(self, method: str, path: str) -> Any:
        return self._ask(method, f"/sandbox/{self.get('sandbox')}{path}")

    def _make(self, path: str, body: Body) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Body = None) -> Any:
        answer = request(method, self.sandyard.api_url + path, body, headers=authorization(self.sandyard))
        assert answer.status in (200, 201, 204), (method, path, answer)
        return answer.json() if answer.body else None


REGISTRY = {"name": "r", "url": "registry.example:5000", "username": "u", "password": "p", "project": ""}
