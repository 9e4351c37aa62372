"""Our own registry as the rest of the control plane sees it: logins for pushing to it and for pulling from it."""

from sandyard.clock import Clock
from sandyard.hosts import HostRules
from sandyard_api.errors import Unavailable
from sandyard_api.image_registry.credentials import ImageKeys, ImageLogin, Scope
from sandyard_api.image_registry.names import references
from sandyard_api.image_registry.store import ImageStore
from sandyard_api.jobs.wire import RegistryLogin

NOT_CONFIGURED = "The image registry is not configured"


class ImageRegistry:
    """The images that clients pushed. `store` is `None` where this process has no place for them."""

    def __init__(self, store: ImageStore | None, keys: ImageKeys, hosts: HostRules, clock: Clock) -> None:
        self.store = store
        self.keys = keys
        self._hosts = hosts
        self._clock = clock

    def issue(self, organization_id: str) -> ImageLogin:
        """A login for pushing. Raises `Unavailable`."""
        if self.store is None:
            raise Unavailable(NOT_CONFIGURED)
        return self.keys.issue(organization_id, Scope.PUSH, self._clock.now())

    def logins(self, organization_id: str | None, image: str | None, dockerfile: str | None) -> list[RegistryLogin]:
        """What a runner may show us for an image, or for the images of a Dockerfile, that the organization pushed.

        Only where the host of the reference is a name of ours: nobody else is shown a login.
        """
        if organization_id is None or self.store is None:
            return []
        named = [reference for text in (image, dockerfile) if text for reference in references(text)]
        hosts = {one.host for one in named if one.repository.organization_id == organization_id}
        ours = sorted(host for host in hosts if self._hosts.accepts(host))
        if not ours:
            return []
        login = self.keys.issue(organization_id, Scope.PULL, self._clock.now())
        return [RegistryLogin(f"{host}/{organization_id}", login.username, login.secret) for host in ours]
