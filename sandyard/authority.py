"""Where the certificate authority of this installation is. What makes it is apart: much to import, and few have one."""

from pathlib import Path

import msgspec


class Authority(msgspec.Struct, frozen=True):
    """Where an installation keeps its authority."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """What other programs are to trust."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """What signs; readable to its owner only."""
        return self.folder / "ca.key"

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return self.certificate.exists() and self.key.exists()


def authority_of(data_dir: Path) -> Authority:
    """The authority of a data directory, made or not."""
    return Authority(data_dir / "trust")
