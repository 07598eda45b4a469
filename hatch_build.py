"""What the index page of a release says: where the sources have a public address, with it; its links are absolute then.

The address is set in one place, `[tool.hatch.metadata.hooks.custom]` of pyproject.toml. As long as it is empty there are no
project.urls, and the links of the README stay relative: none that leads nowhere is published.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
README = "README.md"


def absolute(text: str, address: str, version: str) -> str:
    """Markdown whose relative links lead to the sources of this version; pictures to their bytes."""

    def found(link: re.Match[str]) -> str:
        mark, said, path = link.groups()
        return f"{mark}[{said}]({address}/{'raw' if mark else 'blob'}/v{version}/{path})"

    return LINK.sub(found, text)


class CustomMetadataHook(MetadataHookInterface):
    """Hatchling's way to what is said of a release beside pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README, and the addresses if there is one."""
        text, address = (Path(self.root) / README).read_text("utf-8"), self.config.get("address", "").rstrip("/")
        if address and not address.startswith("https://"):
            raise ValueError(f"the address {address!r} in pyproject.toml is none: it begins with https://, or is empty")
        if address:
            text = absolute(text, address, metadata["version"])
            metadata["urls"] = {
                "Source": address,
                "Documentation": f"{address}/blob/v{metadata['version']}/README.md",
                "Changelog": f"{address}/blob/v{metadata['version']}/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
