"""The one place where transformers loads a model: from a folder of links to what was checked, and without its code.

transformers reads more of a folder than its weights and its tokenizer: code, pickles, adapters beside them, further
templates. In the folder that it is shown there are none.
"""

import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from soupmix.base.companions import CONFIG, check_config, companions, quantisation
from soupmix.base.quantisation import check_packages
from soupmix.base.safetensors import INDEX, read_tensors, weight_files
from soupmix.errors import BaseModelError

__all__ = ["empty_model", "load_model", "load_tokenizer", "plainly", "saying"]

_MOST_CALLS, _CALLS_A_TENSOR = (
    100_000,
    100,
)  # of torch; making a model of transformers takes some ten a tensor, loading it twenty
_ADVICE = "use a safetensors folder of a causal language model that transformers supports without code of its own"
_PIECES = {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}


def load_model(folder: Path, dtype: Any, device: str = "cpu") -> Any:
    """The causal language model of a folder.

    Args:
        dtype: a torch dtype, or "auto" for the model's own. device: where it is put; quantised weights are made there, as
            not all of them can be moved.

    Raises:
        BaseModelError: the folder is damaged, hostile, of an unknown architecture or for code of its own
            ("cannot-load"), lacks weights that the model needs ("incomplete"), is of a model with far more parts than it has
            tensors ("bad-config"), is quantised by a package that is not installed ("quantiser-missing"), or as `companions` and
            `check_config`.
    """
    from transformers import AutoModelForCausalLM

    tensors = read_tensors(folder)
    check_config(folder, tensors)
    placed: dict[str, Any] = {}
    if (found := quantisation(folder)) is not None:
        check_packages(found, str(folder))
        placed = {"device_map": {"": device}}
    files = [*companions(folder), *_weights(folder)]
    with plainly(folder, files) as plain, saying(folder), _few_calls(folder, len(tensors)):
        model, told = AutoModelForCausalLM.from_pretrained(
            plain,
            dtype=dtype,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **placed,
        )
    missing = sorted({*told["missing_keys"], *(each[0] for each in told["mismatched_keys"])})
    if missing:
        raise BaseModelError(
            f"base model {folder} has no weights for {missing[0]} (and {len(missing) - 1} more), which its config.json "
            "asks for; made-up ones are not used",
            reason="incomplete",
        )
    model.name_or_path = model.config._name_or_path = str(folder)
    return model if placed else model.to(device)


def empty_model(folder: Path) -> Any:
    """The causal language model of a folder without its weights, on the meta device; no memory is taken for them.

    Raises:
        BaseModelError: as `load_model`, save for "incomplete".
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors = read_tensors(folder)
    check_config(folder, tensors)
    with (
        plainly(folder, [folder / CONFIG]) as plain,
        saying(folder),
        torch.device("meta"),
        _few_calls(folder, len(tensors)),
    ):
        config = AutoConfig.from_pretrained(plain, trust_remote_code=False, local_files_only=True)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _few_calls(folder: Path, tensors: int) -> Any:
    """Ends the making of a model that has far more parts than there are tensors, such as a million experts of no size."""
    from torch.overrides import TorchFunctionMode

    class Counting(TorchFunctionMode):
        left = _MOST_CALLS + _CALLS_A_TENSOR * tensors

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.left -= 1
            if self.left < 0:
                raise BaseModelError(
                    f"config.json of base model {folder} is of a model with far more parts than the {tensors} tensors of the "
                    "folder; it is damaged or hostile",
                    reason="bad-config",
                )
            return function(*args, **(kwargs or {}))

    return Counting()


def load_tokenizer(folder: Path, chat_template: str | None = None) -> Any:
    """The tokenizer of a folder.

    Args:
        chat_template: read conversations by this one instead of the folder's own.

    Raises:
        BaseModelError: it is damaged, hostile or for code of its own ("cannot-load"), or as `companions`.
    """
    from transformers import AutoTokenizer

    files = companions(folder)
    with plainly(folder, files) as plain, saying(folder, _about_tokenizer({path.name for path in files})):
        tokenizer = AutoTokenizer.from_pretrained(plain, trust_remote_code=False, local_files_only=True)
    tokenizer.name_or_path = str(folder)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def _about_tokenizer(files: Set[str]) -> str:
    """What to do if a tokenizer cannot be loaded from files of these names."""
    if not files & {*_PIECES, "tokenizer.json", "vocab.json", "vocab.txt"}:
        return "the folder holds no tokenizer: put the model's own tokenizer.json there"
    if "tokenizer.json" not in files and files & _PIECES and find_spec("sentencepiece") is None:
        return (
            "its tokenizer is a SentencePiece model: `pip install sentencepiece protobuf`, or save it as tokenizer.json"
        )
    return _ADVICE


@contextmanager
def plainly(name: Path, files: "list[Path] | tuple[Path, ...]") -> Iterator[Path]:
    """A new folder that holds links to these files and nothing else, for as long as the `with`."""
    with tempfile.TemporaryDirectory(prefix="soupmix-", suffix=f"-{name.name[:40]}") as made:
        for file in files:
            (Path(made) / file.name).symlink_to(file.resolve())
        yield Path(made)


def _weights(folder: Path) -> list[Path]:
    files = list(weight_files(folder))
    return files if len(files) == 1 and files[0].name == "model.safetensors" else [*files, folder / INDEX]


@contextmanager
def saying(folder: Path, advice: str = _ADVICE) -> Iterator[None]:
    """What transformers raises about a base model, as one sentence that ends with what to do."""
    try:
        yield
    except BaseModelError:
        raise
    except Exception as error:  # transformers and tokenizers raise anything, down to bare Exception
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"base model {folder} cannot be loaded: transformers says {said!r}; {advice}", reason="cannot-load"
        ) from error
