"""Base models from the Hugging Face hub: what is in its cache is used, what is not is fetched, never a pickle."""

from pathlib import Path

from soupmix.base.tensors import weight_files
from soupmix.errors import BaseModelError

__all__ = ["snapshot"]

_WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
_SECONDS = 10.0  # longest wait for the hub's first answer


def snapshot(repo: str, revision: str | None) -> Path:
    """The folder of a hub model: from the hub's own cache if it is complete there, else downloaded.

    Raises:
        BaseModelError: not cached and the hub cannot be reached ("offline"), or the hub does not have it
            ("not-on-hub").
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = repo if revision is None else f"{repo}@{revision}"
    cached = _cached(repo, revision)
    if cached is not None:
        return cached
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=_WANTED, etag_timeout=_SECONDS, max_workers=4
        )
    except HfHubHTTPError as error:
        raise BaseModelError(
            f"the hub has no model {wanted!r} that you may read ({type(error).__name__}): check the name and the "
            "revision, or log in with `hf auth login`",
            reason="not-on-hub",
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise BaseModelError(
            f"base model {wanted!r} is not cached and the hub cannot be reached: connect to the network once, or "
            f"run `hf download {repo}` elsewhere and give its folder",
            reason="offline",
        ) from error
    if not _complete(Path(folder)):  # without a network, what is cached is given out even if files are missing
        raise BaseModelError(
            f"base model {wanted!r} has no complete safetensors weights in the hub's cache: connect once to complete "
            "it, or choose a model that is published as safetensors",
            reason="incomplete",
        )
    return Path(folder)


def _cached(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=_WANTED, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _complete(folder) else None


def _complete(folder: Path) -> bool:
    try:
        weight_files(folder)
    except BaseModelError as error:
        if error.reason in {"incomplete", "no-weights"}:
            return False
        raise
    return True
