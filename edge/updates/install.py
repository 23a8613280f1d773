"""Setting a gateway up for updates: the first agent into slot a, the boot record, and the launcher as one file."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from backports import zstd

from edge.updates import record as boot
from edge.updates.stage import check_agent
from edge.updates.unpack import unpack
from protocols.core.errors import ConfigError, ContractError
from protocols.updates.bundle import MANIFEST, Manifest, content_id

_CARRIED = ("__init__.py", "updates/__init__.py", "updates/record.py", "updates/launcher.py")


def launcher_file() -> bytes:
    """``launcher.pyz``: a zip archive that Python runs, with the launcher and the boot record's code."""
    here = Path(__file__).parents[1]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _CARRIED:
            archive.writestr(zipfile.ZipInfo(f"edge/{name}"), (here / name).read_bytes())
        start = b"import sys\nfrom edge.updates.launcher import main\nsys.exit(main())\n"
        archive.writestr(zipfile.ZipInfo("__main__.py"), start)
    return out.getvalue()


def init(root: Path, bundle: Path) -> Manifest:
    """A fresh ROOT with the agent of ``bundle`` in slot a. Raises ConfigError if there is a record already,
    ContractError if the bundle is not whole or not for this machine."""
    if boot.read(root) is not None:
        raise ConfigError(f"{root} is set up already; updates come through the core")
    root.mkdir(parents=True, exist_ok=True, mode=0o750)
    manifest = unpack(bundle, root / "a", _content_of(bundle))
    check_agent(manifest, None)
    if manifest.kind != "agent":
        raise ContractError(f"{bundle}: {manifest.kind}, not an agent", reason="kind")
    part = root / ".launcher.part"
    part.write_bytes(launcher_file())
    part.replace(root / "launcher.pyz")
    boot.write(root, boot.first("a", manifest.version))
    return manifest


def _content_of(bundle: Path) -> str:
    """The content id of a bundle that the installer trusts because he brought it himself."""
    try:
        with bundle.open("rb") as file, zstd.ZstdFile(file) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            member = tar.next()
            stream = tar.extractfile(member) if member is not None and member.name == MANIFEST else None
            if stream is None:
                raise ContractError(f"{bundle}: no bundle", reason="bundle")
            return content_id(stream.read())
    except (OSError, EOFError, zstd.ZstdError, tarfile.TarError) as error:
        raise ContractError(f"{bundle}: {error}", reason="bundle") from error
