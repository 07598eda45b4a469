"""What an adapter of any PEFT method changes: PEFT merges it, layer by layer in float64, and the base is subtracted.

The model is built from the base's config.json without its weights. NaN stands in their place and takes no memory, so whatever
PEFT would compute from them beforehand cannot pass for a number. Each layer in turn gets its own weight, is compared merged and
unmerged, and gives its memory back.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from soupmix.base.loading import empty_model
from soupmix.errors import AdapterError, SoupmixError
from soupmix.extract.change import BaseWeights, Change, change, frobenius_norm
from soupmix.extract.settings import TunerSettings
from soupmix.store.reader import PREFIX

__all__ = ["Tuner"]

_ADAPTER: Final = "default"
_SAME: Final = 1e-5  # of the change: how far PEFT's merged layer may be from its unmerged one
_INPUTS: Final = 8  # on which they are compared
_ARGUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {"ADALORA": {"total_step": 1}}  # of a training that is over


@dataclass(slots=True)
class Tuner:
    """An adapter of any method.

    Attributes:
        where: names it in errors. tensors: by the names in its file.
        digest: of its files, "sha256:<hex>". warnings: one sentence each.
    """

    where: str
    settings: TunerSettings
    tensors: Mapping[str, Tensor]
    weights: BaseWeights
    digest: str
    warnings: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """PEFT's name of its method."""
        return self.settings.method

    def changes(self) -> Iterator[Change]:
        """What it changes: first whole tensors that it replaces, then layer by layer in the order of the model.

        Raises:
            AdapterError: the tensors are not those of the method on this base ("not-of-method"), PEFT refuses them ("peft") or
                does not compute merged what it computes unmerged ("not-merged"), or they are not finite ("not-finite").
            BaseModelError: a weight of the base cannot be read.
        """
        model = empty_model(self.weights.base.folder)
        replaced = _replaced(model, self.tensors)
        for parameter, tensor in replaced.values():
            layer = self.weights.linear(parameter.removesuffix(".weight"))
            found = change(parameter, tensor, self.weights.value(parameter), layer)
            if found is not None:
                yield found
        adapting = {name: tensor for name, tensor in self.tensors.items() if name not in replaced}
        if not adapting:
            return
        adapting |= self._uncut(adapting)
        with _peft_says(self.where):
            tuned = self._tuned(model, adapting)
        for path, layer in tuned:
            yield from self._merged(path, layer)

    def _uncut(self, adapting: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """AdaLoRA's factors with zeros for the columns that were cut: PEFT cannot cut what has no memory yet."""
        pattern = self.settings.values.get("rank_pattern", {}) if self.settings.method == "ADALORA" else {}
        found = {}
        for key, kept in pattern.items():
            path, mask = key.partition(".lora_E")[0], torch.tensor(kept, dtype=torch.bool)
            for factor, side in (("lora_A", 0), ("lora_E", 0), ("lora_B", 1)):
                name = f"{PREFIX}{path}.{factor}"
                tensor = adapting.get(name)
                if tensor is None or tensor.dim() != 2 or tensor.shape[side] not in (int(mask.sum()), len(mask)):
                    raise _not_of_method(self.where, self.settings, name)
                if tensor.shape[side] < len(mask):
                    shape = (len(mask), tensor.shape[1]) if side == 0 else (tensor.shape[0], len(mask))
                    found[name] = tensor.new_zeros(shape).index_copy_(side, mask.nonzero().flatten(), tensor)
        return found

    def _tuned(self, model: Any, adapting: Mapping[str, Tensor]) -> list[tuple[str, Any]]:
        """The layers that PEFT adapts, with the adapter's tensors in them, by path."""
        from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
        from peft.tuners.tuners_utils import BaseTunerLayer

        def wrapped(inner: Any) -> Any:
            config = self._config(inner, adapting)
            return PeftModel(inner, config, _ADAPTER, autocast_adapter_dtype=False, low_cpu_mem_usage=True).eval()

        self._check_sizes(wrapped, adapting)
        _hollow(model)
        tuned = wrapped(model)
        set_peft_model_state_dict(tuned, dict(adapting), _ADAPTER, low_cpu_mem_usage=True)
        self._check(get_peft_model_state_dict(tuned, save_embedding_layers=False), adapting, values=True)
        named = tuned.base_model.model.named_modules()
        return [(path, module) for path, module in named if isinstance(module, BaseTunerLayer)]

    def _check_sizes(self, wrapped: Callable[[Any], Any], adapting: Mapping[str, Tensor]) -> None:
        """Refuse a config that asks for other tensors than the file has, before any memory is taken for them."""
        from peft import get_peft_model_state_dict

        with torch.device("meta"):
            dry = wrapped(empty_model(self.weights.base.folder))
        self._check(get_peft_model_state_dict(dry, save_embedding_layers=False), adapting, values=False)

    def _config(self, model: Any, adapting: Mapping[str, Tensor]) -> Any:
        """PEFT's config for the modules that the tensors belong to."""
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING

        method, known = self.settings.method, dict(model.named_modules())
        modules = {name: found for name in adapting if (found := _module_of(name, known))}
        if not modules:
            raise _not_of_method(self.where, self.settings, next(iter(adapting)))
        self.settings.check_patterns(modules.values())
        arguments = {**self.settings.values, **_ARGUMENTS.get(method, {}), "inference_mode": True}
        if method == "ADALORA":
            arguments.pop("rank_pattern", None)
        if method == "IA3":  # scales what a layer reads, or what it gives; the shape says which
            arguments["feedforward_modules"] = [path for name, path in modules.items() if adapting[name].shape[0] == 1]
        kind = PEFT_TYPE_TO_CONFIG_MAPPING[method]
        return kind(**arguments, target_modules=sorted(set(modules.values())))

    def _check(self, inside: Mapping[str, Tensor], adapting: Mapping[str, Tensor], *, values: bool) -> None:
        """PEFT has exactly these tensors, in these shapes and, once they are loaded, with these values."""
        for name in sorted({*inside, *adapting}):
            if name not in inside or name not in adapting or inside[name].shape != adapting[name].shape:
                raise _not_of_method(self.where, self.settings, name)
            if values and not torch.equal(inside[name].float(), adapting[name].float()):
                raise _not_of_method(self.where, self.settings, name)

    def _merged(self, path: str, layer: Any) -> Iterator[Change]:
        base = layer.get_base_layer()
        weight, bias = self._parameter(f"{path}.weight"), self._parameter(f"{path}.bias")
        if weight is None:
            raise _not_of_method(self.where, self.settings, path)
        with _peft_says(self.where), torch.no_grad():
            _place(base, weight, bias)
            layer.double()
            inputs = _inputs(base)
            plain = base(inputs)
            begin = weight if self.settings.residual is None else weight - self._taken(layer, weight)
            _place(base, begin, bias)
            unmerged = layer(inputs)
            layer.merge(adapter_names=[_ADAPTER])
            merged = base(inputs)
            delta = base.weight.data - weight
            shift = 0.0 if bias is None else frobenius_norm(base.bias - bias, f"{path}.bias")
            _release(layer)
        self._check_merged(path, plain, unmerged, merged)
        linear = self.weights.linear(path)
        oriented = delta.T if self.weights.layers[path].transposed else delta
        yield Change(path, frobenius_norm(delta, path), oriented if linear is not None else None)
        if shift:
            yield Change(f"{path}.bias", shift)

    def _parameter(self, name: str) -> Tensor | None:
        """A parameter of the base in float64."""
        value = self.weights.value(name)
        return None if value is None else value.double()

    def _taken(self, layer: Any, weight: Tensor) -> Tensor:
        """What PiSSA or OLoRA took away from a weight before training, the way round of the weight, as PEFT does it."""
        base, factors = layer.get_base_layer(), (layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER])
        trained = [factor.weight.data for factor in factors]
        base.weight = nn.Parameter(weight.float(), requires_grad=False)
        if self.settings.residual == "pissa":
            layer.pissa_init(_ADAPTER, "pissa")
        else:
            layer.olora_init(_ADAPTER)
        A, B = (factor.weight.data.double() for factor in factors)
        for factor, data in zip(factors, trained, strict=True):
            factor.weight.data = data
        taken: Tensor = layer.scaling[_ADAPTER] * (B @ A)
        return taken.T if self.settings.residual == "pissa" and layer.fan_in_fan_out else taken

    def _check_merged(self, path: str, plain: Tensor, unmerged: Tensor, merged: Tensor) -> None:
        change, wrong = frobenius_norm(unmerged - plain, path), frobenius_norm(merged - unmerged, path)
        if wrong > _SAME * change + 1e-9 * frobenius_norm(plain, path):
            raise AdapterError(
                f"{self.where}: merged, PEFT's {self.settings.method} computes at {path} something else than unmerged "
                f"({wrong:.2g} of {change:.2g}), so there is no change of the weight to extract",
                reason="not-merged",
            )


def _replaced(model: Any, tensors: Mapping[str, Tensor]) -> Mapping[str, tuple[str, Tensor]]:
    """Names in the file of whole tensors of the model -> name of the parameter, and the tensor."""
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found = {}
    for name, tensor in tensors.items():
        parameter = name.removeprefix(PREFIX).replace(".base_layer.", ".").replace(".modules_to_save.", ".")
        if parameter in known:
            found[name] = parameter, tensor
    return found


def _module_of(name: str, known: Mapping[str, Any]) -> str:
    """The longest path of a module that the name of a tensor begins with; "" if there is none."""
    path = name.removeprefix(PREFIX)
    while path and path not in known:
        path = path.rpartition(".")[0]
    return path


def _hollow(model: Any) -> None:
    """Put NaN in place of every parameter: one number, seen from every place."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                data = torch.full((), torch.nan).expand(parameter.shape)
                module._parameters[name] = nn.Parameter(data, requires_grad=False)


def _place(base: Any, weight: Tensor, bias: Tensor | None) -> None:
    base.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        base.bias = nn.Parameter(bias.clone(), requires_grad=False)


def _inputs(base: Any) -> Tensor:
    """Drawn inputs of a layer, or the first tokens of a table."""
    if isinstance(base, nn.Embedding):
        return torch.arange(min(_INPUTS, base.num_embeddings))
    features = base.in_features if isinstance(base, nn.Linear) else base.nx
    return torch.randn(_INPUTS, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _release(layer: Any) -> None:
    for parameter in layer.parameters():
        parameter.data = torch.empty(0)


@contextmanager
def _peft_says(where: str) -> Iterator[None]:
    """What PEFT raises, as one sentence; what it warns of is checked afterwards."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SoupmixError:
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AdapterError(f"{where} cannot be merged: PEFT says {said!a}", reason="peft") from error


def _not_of_method(where: str, settings: TunerSettings, name: str) -> AdapterError:
    return AdapterError(
        f"{where}: the tensor {name[:120]!a} is missing, too many, or not of the shape that {settings.method} has with these "
        "settings on this base: it was trained on another base, or its config is not its own",
        reason="not-of-method",
    )
