"""What options are where the command line does not say: variables of the environment, then a file of the user's.

Click asks for both itself: `SOUPMIX_STORE`, `SOUPMIX_BASE` and `SOUPMIX_POLICY` by `envvar`, the file as its `default_map`.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

import platformdirs

from soupmix.errors import RecipeError
from soupmix.files import told

__all__ = ["KEYS", "UserDefaults", "config_path", "default_base", "in_force", "read_config"]

KEYS = {"store": "store", "base": "base", "policy": "policies"}
"""Key in the file -> parameter of the commands."""

_MOST_BYTES = 1 << 16


class UserDefaults(dict[str, Any]):
    """The same defaults for every command, however deep: click asks a map for a command's own map, by its name."""

    def get(self, key: str, default: Any = None) -> Any:
        """The default of a parameter; of any other name these very defaults."""
        return self[key] if key in self else default if key in KEYS.values() else self


def config_path() -> Path:
    """$SOUPMIX_CONFIG, else config.toml in the folder for user configuration."""
    override = os.environ.get("SOUPMIX_CONFIG")
    return Path(override).expanduser() if override else platformdirs.user_config_path("soupmix") / "config.toml"


def read_config() -> UserDefaults:
    """The defaults in the user's file; none if there is no file. A relative path counts from the file's folder.

    Raises:
        RecipeError: it cannot be read (reason "unreadable"), is not TOML, or says something else ("bad-config").
    """
    path = config_path()
    try:
        with path.open("rb") as file:
            said = tomllib.loads(file.read(_MOST_BYTES).decode())
    except (FileNotFoundError, NotADirectoryError):
        return UserDefaults()
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from None
    except ValueError as error:
        raise RecipeError(f"{path} is not TOML: {told(error)}", reason="bad-config") from None
    found = UserDefaults()
    for key, value in said.items():
        texts = value if isinstance(value, list) and key == "policy" else [value]
        if key not in KEYS or not all(isinstance(each, str) and each for each in texts):
            raise RecipeError(
                f"{path} says {key} = {value!r:.80}; it may say {', '.join(KEYS)}, each a text (policy also a list of texts)",
                reason="bad-config",
            )
        placed = [_placed(each, path) if key != "base" or _is_path(each) else each for each in texts]
        found[KEYS[key]] = placed if key == "policy" else placed[0]
    return found


def default_base() -> str | None:
    """The base for commands that have no --base. Raises as `read_config` does."""
    said = os.environ.get("SOUPMIX_BASE") or dict.get(read_config(), "base")
    return said if isinstance(said, str) else None


def in_force() -> dict[str, str]:
    """Key -> what it is by default and who says so, for people; of those that are said."""
    held = {name: (each, "the config file") for name, each in read_config().items()}
    for key, name in KEYS.items():
        if value := os.environ.get(f"SOUPMIX_{key.upper()}"):
            held[name] = (value, f"SOUPMIX_{key.upper()}")
    names = {name: key for key, name in KEYS.items()}
    return {
        names[name]: f"{' '.join(value) if isinstance(value, list) else value} (by {who})"
        for name, (value, who) in sorted(held.items())
    }


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.lower().endswith(".gguf")


def _placed(text: str, path: Path) -> str:
    return str(path.parent / Path(text).expanduser())
