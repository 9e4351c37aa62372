"""The test bench's routes as a test uses them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.contract.running import Instance
from tests.contract.wire_client import Answer, request


@dataclass(frozen=True, slots=True)
class BenchClient:
    """One key's view of the bench."""

    sandyard: Instance
    key: str

    @classmethod
    def of_new_organization(cls, sandyard: Instance) -> "BenchClient":
        """An organization of this test's own."""
        made = cls(sandyard, sandyard.api_key).call("POST", "/organizations", {})
        return cls(sandyard, made["apiKey"])

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request below `/_sandyard`."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return request(method, f"{self.sandyard.origin}/_sandyard{path}", body, headers=headers, seconds=120)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The same, which must go well."""
        answer = self.ask(method, path, body)
        assert answer.status < 300, answer
        return answer.json()

    def fault(self, kind: str, *, rule: Mapping[str, Any] | None = None, **action: Any) -> str:
        """Order a fault; its id."""
        return str(self.call("POST", "/faults", {"action": {"kind": kind, **action}, **(rule or {})})["id"])

    def clear(self) -> list[dict[str, Any]]:
        """Take every rule back; those that never fired."""
        unused: list[dict[str, Any]] = self.call("DELETE", "/faults")["neverFired"]
        return unused
