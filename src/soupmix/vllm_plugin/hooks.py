"""What is put into vLLM, where: the one file that knows its inner parts, of the versions in `supported`.

API server      InputProcessor.process_inputs          a row that may not be is refused, with status 400
engine core     EngineCore.preprocess_add_request      again, whoever speaks to it; a refused request ends in an error
                EngineCoreProc.process_input_sockets   the canary, before anything is taken in; EngineCore.__init__ where
                                                       the engine is in the caller's process
worker          WorkerWrapperBase.init_device          features and base; then the model runner, V1 or V2: adapters into its
                                                       layers, rows before steps

An engine core in a process of its own loads plug-ins inside its `__init__`; what is put in place of that comes too late there.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupmix.base import resolve
from soupmix.errors import BaseModelError, RecipeError, SoupmixError
from soupmix.vllm_plugin.canary import check_soups_act
from soupmix.vllm_plugin.checking import Checker, bounds, row_text
from soupmix.vllm_plugin.row import SoupRow
from soupmix.vllm_plugin.setup import read_setup
from soupmix.vllm_plugin.supported import check_features, check_version

__all__ = ["attach", "install"]

_INSTALLED: list[Checker] = []


def install(setup: str | Path) -> None:
    """Serve soups in this process of vLLM; again, it does nothing.

    Args:
        setup: the setup file, see `soupmix.vllm_plugin.setup.read_setup`.

    Raises:
        RecipeError: this version of vLLM is not known ("vllm-version"). SoupmixError: as everything that the setup names raises.
    """
    if _INSTALLED:
        return
    import vllm

    check_version(vllm.__version__)
    checker = Checker(read_setup(Path(setup)))
    _INSTALLED.append(checker)
    _at_the_door(checker)
    _in_the_core(checker)
    _in_the_workers(checker)


def _replace(kind: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a method in place of another, on a class or an object; `make` gets the one that was there."""
    if not hasattr(kind, name):
        raise RecipeError(f"this vLLM has no {kind}.{name}, so soups cannot be served in it", reason="vllm-version")
    before = getattr(kind, name)
    setattr(kind, name, functools.wraps(before)(make(before)))


def _at_the_door(checker: Checker) -> None:
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.input_processor import InputProcessor

    def make(before: Callable[..., Any]) -> Callable[..., Any]:
        def process_inputs(*given: Any, **named: Any) -> Any:
            request = before(*given, **named)
            try:
                _check(checker, request)
            except SoupmixError as error:
                raise VLLMValidationError(f"{error} [{error.reason}]") from error
            return request

        return process_inputs

    _replace(InputProcessor, "process_inputs", make)


def _in_the_core(checker: Checker) -> None:
    from vllm.v1.engine.core import EngineCore, EngineCoreProc

    def checked(before: Callable[..., Any]) -> Callable[..., Any]:
        def preprocess_add_request(core: Any, request: Any) -> Any:
            row = _check(checker, request)
            if row is not None:
                request.cache_salt = row.kept_under(checker.setup.key)
            return before(core, request)

        return preprocess_add_request

    def started(before: Callable[..., Any]) -> Callable[..., Any]:
        def __init__(core: Any, *given: Any, **named: Any) -> None:  # noqa: N807
            before(core, *given, **named)
            if not isinstance(core, EngineCoreProc):  # which still has to open its queues
                _show(core, checker)

        return __init__

    _replace(EngineCore, "preprocess_add_request", checked)
    _replace(EngineCore, "__init__", started)
    EngineCoreProc.process_input_sockets = _ShownFirst(EngineCoreProc.process_input_sockets, checker)


class _ShownFirst:
    """Stands for the method by which an engine core takes requests in: looked up, it first shows that soups act."""

    def __init__(self, method: Callable[..., Any], checker: Checker) -> None:
        self._method, self._checker = method, checker

    def __get__(self, core: Any, kind: Any = None) -> Any:
        if core is None:
            return self._method
        _show(core, self._checker)
        return functools.partial(self._method, core)


def _show(core: Any, checker: Checker) -> None:
    if not getattr(core, "_soups_act", False):
        check_soups_act(core, checker)
        core._soups_act = True


def check_base(config: Any, checker: Checker) -> None:
    """Raise BaseModelError (reason "wrong-base") unless the model of a `VllmConfig` is the base of the adapters."""
    found = resolve(config.model_config.model)
    for entry in checker.setup.store:
        if entry.base_digest != found.digest:
            raise BaseModelError(
                f"adapter '{entry.name}' was trained on base {entry.base_digest}, and vLLM is started with {found.name} "
                f"({found.digest}); give it the base of the adapters",
                reason="wrong-base",
            )


def _in_the_workers(checker: Checker) -> None:
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    def make(before: Callable[..., Any]) -> Callable[..., Any]:
        def init_device(wrapper: Any) -> None:
            check_features(wrapper.vllm_config)
            check_base(wrapper.vllm_config, checker)
            before(wrapper)
            attach(wrapper.worker.model_runner, wrapper.vllm_config, checker)

        return init_device

    _replace(WorkerWrapperBase, "init_device", make)


def _check(checker: Checker, request: Any) -> SoupRow | None:
    """The row of an `EngineCoreRequest`, checked, if it has one."""
    params = request.sampling_params
    text = None if params is None else row_text(params.extra_args)
    if text is None:
        return None
    if request.resumable:
        raise RecipeError(
            "a session whose prompt grows cannot have a soup: its row is for one prompt", reason="resumable"
        )
    if getattr(request, "prompt_embeds", None) is not None or getattr(request, "mm_features", None):
        raise RecipeError(
            "a soup needs a prompt of tokens alone, as its row is sealed for one, and this has images or embeddings beside them",
            reason="no-tokens",
        )
    return checker.check(text, request.prompt_token_ids, request.cache_salt)


def attach(runner: Any, config: Any, checker: Checker) -> None:
    """Serve soups in a model runner, V1 or V2, that has not loaded its model yet.

    Raises:
        RecipeError: it is neither (reason "vllm-version").
    """
    from soupmix.vllm_plugin.placing import place
    from soupmix.vllm_plugin.step import StepRows, compiled_here, serve

    scheduled = config.scheduler_config
    tokens = max(scheduled.max_num_batched_tokens, config.compilation_config.max_cudagraph_capture_size or 0)
    compiled = compiled_here(config.model_config.dtype, runner.device)
    most = bounds(checker.policy, checker.adapters)
    rows = StepRows(most, scheduled.max_num_seqs, tokens, runner.device, compiled)

    def loaded(before: Callable[..., Any]) -> Callable[..., Any]:
        def load_model(*given: Any, **named: Any) -> None:
            before(*given, **named)
            adapters = [checker.setup.store.load(name, digest) for name, digest in checker.adapters]
            place(runner.get_model(), adapters, rows, config.model_config.dtype, runner.device)
            serve(rows)

        return load_model

    def idle(before: Callable[..., Any]) -> Callable[..., Any]:
        def _dummy_run(*given: Any, **named: Any) -> Any:
            rows.clear()
            return before(*given, **named)

        return _dummy_run

    _replace(runner, "load_model", loaded)
    _replace(runner, "_dummy_run", idle)
    if hasattr(runner, "_prepare_inputs"):
        _follow_v1(runner, rows, checker)
    else:
        _follow_v2(runner, rows, checker)


def _follow_v1(runner: Any, rows: Any, checker: Checker) -> None:
    def updated(before: Callable[..., Any]) -> Callable[..., Any]:
        def _update_states(scheduled: Any) -> Any:
            rows.forget(scheduled.finished_req_ids)
            _learn(rows, scheduled, checker)
            return before(scheduled)

        return _update_states

    def prepared(before: Callable[..., Any]) -> Callable[..., Any]:
        def _prepare_inputs(scheduled: Any, counts: Any) -> Any:
            rows.write(runner.input_batch.req_ids, counts)
            return before(scheduled, counts)

        return _prepare_inputs

    _replace(runner, "_update_states", updated)
    _replace(runner, "_prepare_inputs", prepared)


def _follow_v2(runner: Any, rows: Any, checker: Checker) -> None:
    def finished(before: Callable[..., Any]) -> Callable[..., Any]:
        def finish_requests(scheduled: Any) -> Any:
            rows.forget(scheduled.finished_req_ids)
            return before(scheduled)

        return finish_requests

    def added(before: Callable[..., Any]) -> Callable[..., Any]:
        def add_requests(scheduled: Any) -> Any:
            _learn(rows, scheduled, checker)
            return before(scheduled)

        return add_requests

    def prepared(before: Callable[..., Any]) -> Callable[..., Any]:
        def prepare_inputs(scheduled: Any, batch: Any, *given: Any, **named: Any) -> Any:
            rows.write(batch.req_ids, batch.num_scheduled_tokens)
            return before(scheduled, batch, *given, **named)

        return prepare_inputs

    _replace(runner, "finish_requests", finished)
    _replace(runner, "add_requests", added)
    _replace(runner, "prepare_inputs", prepared)


def _learn(rows: Any, scheduled: Any, checker: Checker) -> None:
    """The rows of the requests that a step begins. A wrong tag here was made between two processes: the worker ends.

    What the policy says is not asked again: the engine core has just done so, and kernels clamp to its bounds.
    """
    for each in scheduled.scheduled_new_reqs:
        params = each.sampling_params
        text = None if params is None else row_text(params.extra_args)
        if text is None:
            rows.learn(each.req_id, ())
            continue
        row = checker.opened(text, each.prompt_token_ids)
        if (most := checker.most(row)) is not None:
            rows.bound(most)
        rows.learn(each.req_id, row.weights)
