"""What soupmix does with one family of models, held to PEFT and transformers.

    python -m tests.support.family_check [NAME ...]

checks these families (all if none is named), two at a time, each in a process of its own, and prints a line of JSON for each.

Three adapters are saved by PEFT: of the attention alone, of every linear layer (rsLoRA), and by a list of names with ranks and
alphas by pattern. The oracle of a soup is the base in float64 into which PEFT merges each adapter, its scaling times its
weight. A feature is "exact" if

- add: the Gram matrix and the norm of the base in the manifest are those of PEFT's deltas and transformers' weights;
- adapter: what PEFT merges of the exported one is the oracle, to 1e-6 of every tensor's norm, and so are its logits unmerged;
- model: every tensor that transformers loads of the exported model is the oracle's, to 1e-6 of its norm;
- padded loop: `Engine` has the oracle's logits, and rows of different soups and lengths the tokens of `generate`;
- running batch: so has `Batcher` with its running loop, by token ids, where requests join while others run;
- serve: so has a server on loopback, with the loop that it chooses.
"""

import copy
import itertools
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soupmix.backends import Limits, Request, Sampling
from soupmix.backends.local import LocalBackend
from soupmix.base import resolve
from soupmix.batching import Batcher
from soupmix.engine import Engine
from soupmix.errors import RecipeError, SoupmixError
from soupmix.merge import merge
from soupmix.policy import Grant, Policy
from soupmix.serve.state import ServerConfig, Settings
from soupmix.store import Store
from tests.support.families import FAMILIES, make_family
from tests.support.serving import running

__all__ = ["FEATURES", "Outcome", "check_all", "check_family"]

FEATURES = ("add", "adapter", "model", "padded loop", "running batch", "serve")
SECONDS = 300  # for one family, before its process is ended

Outcome = str
"""Such as "exact", "refused: unsupported-attention: ...", "WRONG: ..." or "crash: ..."; of several parts, each on a line."""

_PROMPTS = (
    "Why?",
    "You may reproduce and distribute copies of the Work",
    "Say it in any medium, with or without",
    "No.",
)
_TOKENS = 16
_MOST_APART = {"add": 1e-6, "model": 1e-6, "logits": 2e-5}
_NOT_BY_PEFT = {"mamba": ("out_proj", "conv1d"), "falcon_h1": ("out_proj", "conv1d")}  # it refuses to adapt these


class _Wrong(Exception):
    """The answer differs from the oracle's."""


def check_family(name: str, where: Path) -> dict[str, Outcome]:
    """The outcome of every feature for a family.

    Args:
        where: a new folder; what is made there may be removed afterwards.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT and transformers, about what we do on purpose
        return _Check(name, where).outcomes()


class _Check:
    """One family: its base, its adapters, the soups that are asked for, and what PEFT makes of them."""

    def __init__(self, name: str, where: Path) -> None:
        self.family, self.where = FAMILIES[name], where
        self.base = make_family(name, where / "base")
        self.added: list[str] = []
        self.store = Store(where / "store", create=True)
        self._oracles: dict[str, Any] = {}
        self.ends = [2]

    def outcomes(self) -> dict[str, Outcome]:
        found = {"add": self._add()}
        checks: Mapping[str, Callable[[], None]] = {
            "adapter": self._adapter,
            "model": self._model,
            "padded loop": self._padded_loop,
            "running batch": self._running_batch,
            "serve": self._serve,
        }
        for feature, check in checks.items():
            found[feature] = self._outcome(check) if self.added else "no adapter could be added"
        return found

    def _outcome(self, check: Callable[[], None]) -> Outcome:
        try:
            check()
        except SoupmixError as error:
            return f"refused: {error.reason}: {self._scrubbed(str(error))}"
        except _Wrong as error:
            return f"WRONG: {error}"
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what this page tells
            return f"crash: {type(error).__name__}: {self._scrubbed(str(error))[:200]} ({_place(error)})"
        return "exact"

    def _scrubbed(self, said: str) -> str:
        """Without the folders of this run, and without times, sizes and layers, which differ from run to run."""
        said = said.replace(f"{self.where}/", "").replace(str(self.where), "")
        said = re.sub(r" for \d+(\.\d+)? s\b", "", said)
        said = re.sub(r"\bare [\d.e+-]+ from\b", "are far from", re.sub(r"\.\d+\.", ".N.", said))
        return re.sub(r"\s+", " ", said)

    # what PEFT makes

    @cached_property
    def linear_layers(self) -> list[str]:
        """Module paths of everything that is called linear, but for the output."""
        model = _load(self.base, torch.float32)
        kinds = (torch.nn.Linear, *_conv1d())
        found = [path for path, module in model.named_modules() if isinstance(module, kinds)]
        without = _NOT_BY_PEFT.get(self.family.kind, ())
        output = model.get_output_embeddings()
        return [p for p in found if model.get_submodule(p) is not output and p.rpartition(".")[2] not in without]

    @cached_property
    def adapters(self) -> dict[str, Path]:
        """Name -> PEFT folder."""
        from peft import LoraConfig

        ends = sorted({path.rpartition(".")[2] for path in self.linear_layers})
        of_attention = [p for p in self.linear_layers if re.search(r"attn|attention|mixer|mamba|conv", p)]
        attention = sorted({path.rpartition(".")[2] for path in of_attention}) or ends[:1]
        everything = ends if self.family.kind in _NOT_BY_PEFT else "all-linear"
        patterns = {"rank_pattern": {ends[0]: 4}, "alpha_pattern": {ends[-1]: 3}}
        configs = {
            "attention": LoraConfig(r=4, lora_alpha=8, target_modules=attention),
            "everything": LoraConfig(r=8, lora_alpha=8, use_rslora=True, target_modules=everything),
            "patterns": LoraConfig(r=16, lora_alpha=16, target_modules=ends, **patterns),
        }
        return {name: self._adapter_of(name, config) for name, config in configs.items()}

    def _adapter_of(self, name: str, config: Any) -> Path:
        from peft import get_peft_model

        config.task_type = "CAUSAL_LM"
        model = get_peft_model(_load(self.base, torch.float32), config)
        generator = torch.Generator().manual_seed(len(name))
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                small = 0.06 if "lora_B" in path else 1 / 8
                parameter.data = torch.randn(parameter.shape, generator=generator) * small
        model.save_pretrained(self.where / name, save_embedding_layers=False)
        return self.where / name

    def oracle(self, soup: Mapping[str, float]) -> Any:
        """The base in float64 with the soup merged into it by PEFT, adapter after adapter."""
        key = json.dumps(soup)
        if key not in self._oracles:
            model = _load(self.base, torch.float64)
            for name, weight in soup.items():
                model = _merged(model, self.adapters[name], weight)
            self._oracles[key] = model
        return self._oracles[key]

    def in_fp32(self, soup: Mapping[str, float]) -> Any:
        return copy.deepcopy(self.oracle(soup)).float()

    def logits(self, soup: Mapping[str, float]) -> Tensor:
        return _logits(self.in_fp32(soup))

    @cached_property
    def peft_runs(self) -> bool:
        """Whether PEFT can run what it adapts without merging it: not Llama4's router, which answers with a pair."""
        try:
            _logits(_adapted(_load(self.base, torch.float32), self.adapters[self.added[-1]]))
        except AttributeError:
            return False
        return True

    @cached_property
    def soups(self) -> list[dict[str, float]]:
        """Of nothing, of one alone, of all together."""
        weights = dict(zip(self.adapters, (0.5, 0.7, 0.3), strict=True))
        return [{}, {self.added[-1]: 1.0}, {name: weights[name] for name in self.added}]

    @cached_property
    def row_soups(self) -> list[dict[str, float]]:
        """The soups that a row can have: those without adapters of experts that lie in one weight."""
        fit = {name for name in self.added if not any("[" in path for path in self.store.load(name).modules)}
        kept = [{name: weight for name, weight in soup.items() if name in fit} for soup in self.soups]
        return [soup for number, soup in enumerate(kept) if soup not in kept[:number]]

    @cached_property
    def row_grants(self) -> list[Grant]:
        policy = Policy.open(self.store)
        return [policy.clamp(soup) for soup in self.row_soups]

    @cached_property
    def grants(self) -> list[Grant]:
        policy = Policy.open(self.store)
        return [policy.clamp(soup) for soup in self.soups]

    @cached_property
    def rows(self) -> list[tuple[str, int]]:
        """Prompt and number of the soup: every soup with two prompts, of different lengths and in mixed order."""
        count = len(self.row_soups)
        return [
            (_PROMPTS[(number * 3 + number // count) % len(_PROMPTS)], number % count) for number in range(2 * count)
        ]

    @cached_property
    def engine(self) -> Engine:
        assert self.answers  # which say what ends one
        return Engine.load(str(self.base), self.store, dtype="fp32")

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base)

    def prompt(self, said: str) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": said}], tokenize=False, add_generation_prompt=True
        )
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def answers(self) -> list[list[int]]:
        """The greedy tokens of every row by `generate` of transformers, alone and in fp32, without the one that ends it."""
        models = [self.in_fp32(soup) for soup in self.row_soups]
        found = []
        for said, number in self.rows:
            ids = torch.tensor([self.prompt(said)])
            with torch.inference_mode():
                out = models[number].generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=_TOKENS
                )
            found.append(out[0, ids.shape[1] :].tolist())
        self._set_end(_end_amidst(found))
        return [self._until_end(ids) for ids in found]

    def _set_end(self, token: int) -> None:
        """One more end, in generation_config.json, so that rows end at different times, and leave a batch that goes on."""
        path = self.base / "generation_config.json"
        self.ends = [2, token]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": self.ends}))

    def _until_end(self, ids: list[int]) -> list[int]:
        return list(itertools.takewhile(lambda token: token not in self.ends, ids))

    # what soupmix makes

    def _add(self) -> Outcome:
        base, outcomes = resolve(str(self.base)), {}
        for name, folder in self.adapters.items():

            def add(name: str = name, folder: Path = folder) -> None:
                self.store.add(folder, dimension=f"d-{name}", pole=name, base=base)
                self.added.append(name)

            outcomes[name] = self._outcome(add)
        refused = [f"{name} {outcome}" for name, outcome in outcomes.items() if outcome != "exact"]
        if self.added:
            measured = self._outcome(self._measures)
            refused += [] if measured == "exact" else [measured]
        return "\n".join(refused) or "exact"

    def _measures(self) -> None:
        base, manifest = dict(self.oracle({}).named_parameters()), self.store.manifest
        deltas = {}
        for name in self.added:
            merged = dict(self.oracle({name: 1.0}).named_parameters())
            deltas[name] = {path: merged[path] - weight for path, weight in base.items()}
        for one in self.added:
            for other in self.added:
                exact = sum(float((deltas[one][path] * deltas[other][path]).sum()) for path in base)
                size = sum(float(deltas[one][path].square().sum()) for path in base)
                if abs(manifest.inner_product(one, other) - exact) > _MOST_APART["add"] * size:
                    raise _Wrong(f"<{one}, {other}> is {manifest.inner_product(one, other):.8g}, not {exact:.8g}")
        changed = [path for path in base if any(bool(delta[path].any()) for delta in deltas.values())]
        norm = sum(float(base[path].double().square().sum()) for path in changed) ** 0.5
        if manifest.base_norm is None or abs(manifest.base_norm - norm) > _MOST_APART["add"] * norm:
            raise _Wrong(f"the norm of the base is {manifest.base_norm}, not {norm:.8g}")

    def _adapter(self) -> None:
        soup, out = self.soups[-1], self.where / "exported"
        merge(self.store, self.grants[-1]).save_adapter(out)
        self._tensors(_merged(_load(self.base, torch.float64), out, 1.0), soup)
        if self.peft_runs:
            made = _logits(_adapted(_load(self.base, torch.float32), out))
            _close(made, self.logits(soup), "logits", "logits of PEFT with the export")

    def _model(self) -> None:
        from transformers import AutoModelForCausalLM

        for number, (soup, grant) in enumerate(zip(self.soups, self.grants, strict=True)):
            out = self.where / f"model-{number}"
            merge(self.store, grant).save_model(out, base=str(self.base))
            made, told = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
            if told["missing_keys"]:
                raise _Wrong(f"{sorted(told['missing_keys'])[0]} is missing")
            self._tensors(made, soup)

    def _tensors(self, made: Any, soup: Mapping[str, float]) -> None:
        exact = self.oracle(soup).state_dict()
        for path, tensor in made.state_dict().items():
            if tensor.is_floating_point():
                _close(tensor, exact[path], "model", path)

    def _padded_loop(self) -> None:
        exact = [self.logits(soup) for soup in self.row_soups]
        for engine in (Engine.load(str(self.base), self.store, dtype="fp32", fused=False), self.engine):
            made = engine.logits(_IDS.repeat(len(exact), 1), self.row_grants)
            for row, wanted in zip(made, exact, strict=True):
                _close(row, wanted, "logits", "logits")
        said, numbers = zip(*self.rows, strict=True)
        done = self.engine.complete(
            said, [self.row_grants[n] for n in numbers], sampling=Sampling(max_new_tokens=_TOKENS)
        )
        self._equal([(each.text, each.tokens) for each in done], self._texts())

    def _running_batch(self) -> None:
        with Batcher(self.engine, _LIMITS, loop="running") as batcher:
            self._equal(self._asked(batcher.submit), self.answers)

    def _asked(self, submit: Callable[..., Any]) -> list[list[int]]:
        made: list[list[int]] = [[] for _ in self.rows]
        ended, errors = [threading.Event() for _ in self.rows], []

        def sink(number: int) -> Callable[[Any], None]:
            def hear(delta: Any) -> None:
                made[number].extend(token.id for token in delta.tokens)
                if delta.error:
                    errors.append(delta.error)
                if delta.finish:
                    ended[number].set()

            return hear

        for number, (said, soup) in enumerate(self.rows):
            request = Request(
                prompt=tuple(self.prompt(said)),
                grant=self.row_grants[soup],
                sampling=Sampling(max_new_tokens=_TOKENS),
                logprobs=1,
            )
            submit(request, sink(number))
            time.sleep(0.005)
        for event in ended:
            event.wait(60)
        if errors:
            raise RuntimeError(f"{errors[0]}")
        return [self._until_end(ids) for ids in made]

    def _serve(self) -> None:
        config = ServerConfig(
            settings=Settings(model="tiny"),
            backend=lambda: LocalBackend(self.engine, _LIMITS),
            adapters=self.store,
            database=str(self.where / "serve.db"),
        )
        with running(config) as server, server.http() as http, ThreadPoolExecutor(len(self.rows)) as pool:

            def ask(row: tuple[str, int]) -> tuple[str, int]:
                body = {
                    "model": "tiny",
                    "messages": [{"role": "user", "content": row[0]}],
                    "max_tokens": _TOKENS,
                    "temperature": 0,
                    "soup": {"weights": self.row_soups[row[1]]},
                }
                answer = http.post("/v1/chat/completions", json=body)
                if answer.status_code == 400:
                    said = answer.json()["error"]
                    raise RecipeError(said["message"], reason=said["code"])
                if answer.status_code != 200:
                    raise RuntimeError(f"{answer.status_code} {answer.text[:200]}")
                said = answer.json()
                return said["choices"][0]["message"]["content"], said["usage"]["completion_tokens"]

            self._equal(list(pool.map(ask, self.rows)), self._texts())

    def _texts(self) -> list[tuple[str, int]]:
        """What every answer adds to its prompt, by transformers' decoding, and how many tokens it has."""
        found = []
        for (said, _), ids in zip(self.rows, self.answers, strict=True):
            before, after = (
                self.tokenizer.decode(each, skip_special_tokens=True)
                for each in (self.prompt(said), self.prompt(said) + ids)
            )
            found.append((after[len(before) :], len(ids)))
        return found

    def _equal(self, made: Sequence[Any], wanted: Sequence[Any]) -> None:
        apart = [(one, other) for one, other in zip(made, wanted, strict=True) if one != other]
        if apart:
            same = len(wanted) - len(apart)
            raise _Wrong(
                f"{same} of {len(wanted)} answers are those of transformers, but {apart[0][0]} is {apart[0][1]}"
            )


_IDS = torch.tensor([[5, 17, 99, 300, 511, 640, 77, 8, 1000, 12, 13, 14]])
_LIMITS = Limits(rows=4, length=256, waiting=64, chunk=16)


def _load(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, experts_implementation="eager").eval()


def _conv1d() -> tuple[type, ...]:
    from transformers.pytorch_utils import Conv1D

    return (Conv1D,)


def _logits(model: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=_IDS).logits[0]
    return logits


def _adapted(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).eval()


def _merged(model: Any, folder: Path, weight: float) -> Any:
    from peft.tuners.lora import LoraLayer

    adapted = _adapted(model, folder).double()
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] *= weight
    return adapted.merge_and_unload().eval()


def _end_amidst(answers: Sequence[list[int]]) -> int:
    """A token that ends some answer early but none at its beginning."""
    for answer in answers:
        for token in answer[4:12]:
            if all(token not in other[:3] for other in answers):
                return token
    return answers[0][8]


def _close(made: Tensor, exact: Tensor, limit: str, what: str) -> None:
    apart = float((made.double() - exact.double()).norm() / (exact.double().norm() + 1e-30))
    if not apart <= _MOST_APART[limit]:
        raise _Wrong(f"{what} differ by {apart:.1e}")


def _place(error: Exception) -> str:
    """The last place in our own code."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "soupmix" in Path(frame.filename).parts]
    return f"{Path(places[-1].filename).name}, {places[-1].name}" if places else "outside soupmix"


# All families, each in a process of its own.


@dataclass(frozen=True, slots=True)
class _Run:
    """A family that is being checked in a process."""

    name: str
    where: Path
    child: Any
    began: float


def check_all(names: Sequence[str], processes: int = 2) -> Iterator[tuple[str, dict[str, Outcome], float]]:
    """Name, outcomes and seconds of every family, in the order in which they end.

    A family whose process dies or takes too long has the outcome "crash" for everything.
    """
    waiting, running = list(names), dict[Connection, _Run]()
    while waiting or running:
        while waiting and len(running) < processes:
            running |= [_start(waiting.pop(0))]
        ready = wait(list(running), timeout=1)
        for told, run in list(running.items()):
            seconds = time.monotonic() - run.began
            if told in ready or seconds > SECONDS:
                del running[told]
                yield run.name, _end(run, told, heard=told in ready), seconds


def _start(name: str) -> tuple[Connection, _Run]:
    """Forked, as importing torch, transformers and PEFT takes longer than the check."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    where = Path(tempfile.mkdtemp(prefix="soupmix-family-"))
    child = context.Process(target=_child, args=(name, where, theirs))
    child.start()
    theirs.close()
    return ours, _Run(name, where, child, time.monotonic())


def _end(run: _Run, told: Connection, *, heard: bool) -> dict[str, Outcome]:
    try:
        found: dict[str, Outcome] = told.recv() if heard else {}
    except EOFError:
        found = {}
    run.child.kill()
    run.child.join()
    told.close()
    shutil.rmtree(run.where, ignore_errors=True)
    return found or dict.fromkeys(FEATURES, f"crash: the process ended, or took more than {SECONDS} s")


def _child(name: str, where: Path, told: Connection) -> None:
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        told.send(check_family(name, where))
    except Exception as error:  # noqa: BLE001  # PEFT or transformers, before soupmix was asked
        told.send(dict.fromkeys(FEATURES, f"crash: {type(error).__name__}: {str(error)[:200]} (in the oracle)"))
    told.close()


def main(names: Sequence[str]) -> None:
    import peft  # noqa: F401  # once, not in every child
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    for name, found, seconds in check_all(names or list(FAMILIES)):
        print(json.dumps({"family": name, **found, "seconds": round(seconds, 1)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
