"""Adapters on the Hugging Face hub: one is fetched by its id, and one is put there.

Of a repository only what an adapter consists of is fetched, never a pickle; it is as hostile as any folder, and checked as one.
"""

import re
from pathlib import Path

from soupmix.base.resolver import network_errors
from soupmix.errors import AdapterError, OutputError

__all__ = ["download", "hub_reference", "push"]

_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,128}))?", re.ASCII)
_WANTED = (
    "README.md", "adapter_config.json", "adapter_model.safetensors", "adapters.safetensors", "added_tokens.json",
    "chat_template.jinja", "effect.json", "tokenizer.json", "tokenizer_config.json", "training.json",
)  # fmt: skip
_SECONDS = 10.0  # longest wait for the hub's first answer


def hub_reference(text: str) -> tuple[str, str | None] | None:
    """(id, revision or None) of "org/name" or "org/name@revision"; None for any other text."""
    found = _ID.fullmatch(text)
    return None if found is None else (found["id"], found["revision"])


def download(repo: str, revision: str | None) -> Path:
    """The folder of an adapter in the hub's cache, fetched if it is not there.

    Raises:
        AdapterError: the hub has no such repository ("not-on-hub"), it cannot be reached ("offline"), or there is no adapter
            in it ("missing").
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = repo if revision is None else f"{repo}@{revision}"
    try:
        found = snapshot_download(repo, revision=revision, allow_patterns=list(_WANTED), etag_timeout=_SECONDS)
    except HfHubHTTPError as error:
        raise AdapterError(
            f"the hub has no adapter {wanted} that you may read ({type(error).__name__}): check the name and the revision, or "
            "log in with `hf auth login`",
            reason="not-on-hub",
        ) from error
    except network_errors() as error:
        raise AdapterError(
            f"there is no folder {wanted} here, nor is it in the hub's cache, and the hub cannot be reached: give a folder, or "
            "connect to the network once",
            reason="offline",
        ) from error
    folder = Path(found)
    if not any((folder / name).exists() for name in _WANTED if name.endswith(".safetensors")):
        raise AdapterError(
            f"{wanted} on the hub holds no adapter_model.safetensors: if it is a pickle, download it and convert it with "
            "`soupmix adapters convert`",
            reason="missing",
        )
    return folder


def push(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Put the files of a folder into a model repository of the hub, which is made if it is not there; the address of it.

    Args:
        folder: as it lies in a store, or as soupmix wrote it.
        message: of the commit.

    Raises:
        AdapterError: `repo` is no "org/name" ("bad-name").
        OutputError: the hub refuses, or cannot be reached ("not-pushed").
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    reference = hub_reference(repo)
    if reference is None or reference[1] is not None:
        raise AdapterError(
            f"{repo!r:.200} is no name on the hub: write ORG/NAME, as in me/dry-humour", reason="bad-name"
        )
    hub = HfApi()
    try:
        made = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        raise OutputError(
            f"the hub did not take {repo} ({type(error).__name__}): log in with `hf auth login`, and check that you may write "
            "there",
            reason="not-pushed",
        ) from error
    except network_errors() as error:
        raise OutputError(
            f"{repo} was not put on the hub, which cannot be reached: {' '.join(str(error).split()):.200}",
            reason="not-pushed",
        ) from error
    return str(made)
