"""Adapters as they lie on hubs come in as they are, and mean what PEFT, MLX-LM and kohya mean by them."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base
from soupmix.errors import AdapterError
from soupmix.findings import Finding
from soupmix.store import Store, read_adapter
from soupmix.store.importing import open_source
from soupmix.store.names import parts_of

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]
Handmade = Callable[..., Path]


@pytest.fixture
def shapes(tiny_base: Base) -> Mapping[str, tuple[int, int]]:
    return tiny_base.layers().linear_shapes()


def _deltas(folder: Path, shapes: Mapping[str, tuple[int, int]]) -> Tensors:
    found = read_adapter(folder, shapes).items()
    return {module: each.scaling * (each.B.double() @ each.A.double()) for module, each in found}


def _same(one: Tensors, other: Tensors, tolerance: float = 0.0) -> None:
    assert sorted(one) == sorted(other)
    for module, delta in one.items():
        torch.testing.assert_close(delta, other[module], rtol=tolerance, atol=0)


def _notes(folder: Path, shapes: Mapping[str, tuple[int, int]], base: Base | None = None) -> list[Finding]:
    with open_source(folder, shapes, base) as source:
        return list(source.notes)


# --- what lies beside, and links


def _hub_cache(folder: Path, root: Path) -> Path:
    """The folder as `hf download` leaves it in the hub's cache."""
    snapshot, blobs = root / "models--a--b" / "snapshots" / ("0" * 40), root / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_a_snapshot_of_a_hub_s_cache_is_copied_in(
    tiny_adapter: Callable[..., Path], tiny_base: Base, tmp_path: Path
) -> None:
    folder = tiny_adapter()
    snapshot = _hub_cache(folder, tmp_path)
    store = Store(tmp_path / "store", create=True)
    store.add(snapshot, dimension="d", pole="p", base=tiny_base)
    for name in (CONFIG, TENSORS, "README.md"):
        kept = store.path("p") / name
        assert kept.read_bytes() == (folder / name).read_bytes()
        assert not kept.is_symlink()
    assert Store(store.folder).load("p").modules


def test_a_link_to_the_folder_is_followed(handmade: Handmade, tmp_path: Path) -> None:
    (tmp_path / "best").symlink_to(handmade())
    assert read_adapter(tmp_path / "best")


@pytest.mark.parametrize("spoil", [lambda card: card.write_bytes(b"x" * ((1 << 20) + 1)), Path.mkdir, os.mkfifo])
def test_a_card_that_cannot_be_kept_is_left_out_and_that_is_said(
    handmade: Handmade, tiny_base: Base, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder = handmade()
    spoil(folder / "README.md")
    told: list[Finding] = []
    Store(tmp_path / "s", create=True).add(folder, dimension="d", pole="p", base=tiny_base, tell=told.append)
    assert [(note.kind, note.subject) for note in told] == [("card", "README.md")]
    assert "README.md is left out: " in told[0].message


@pytest.mark.parametrize("elsewhere", ["/etc/passwd", "/not/there"])
def test_a_card_elsewhere_is_left_out_and_that_is_said(
    handmade: Handmade, tiny_base: Base, tmp_path: Path, elsewhere: str
) -> None:
    folder, said = handmade(), list[Finding]()
    (folder / "README.md").symlink_to(elsewhere)
    store = Store(tmp_path / "store", create=True)
    store.add(folder, dimension="d", pole="p", base=tiny_base, tell=said.append)
    assert [note.message for note in said] == ["README.md is a link to elsewhere, so it is left out"]
    assert sorted(path.name for path in store.path("p").iterdir()) == [CONFIG, TENSORS]


def test_a_link_that_is_swapped_while_it_is_read_leads_nowhere_else(
    handmade: Handmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = _hub_cache(handmade(), tmp_path)
    genuine = os.readlink

    def swapped(path: Any, **more: Any) -> str:
        target = genuine(path, **more)
        (snapshot / CONFIG).unlink()
        (snapshot / CONFIG).symlink_to("/etc/passwd")
        blobs = snapshot.parents[1] / "blobs"
        blobs.rename(blobs.with_name("moved"))
        blobs.symlink_to("/etc")
        return target

    monkeypatch.setattr(os, "readlink", swapped)
    with pytest.raises(AdapterError) as caught:
        read_adapter(snapshot)
    assert caught.value.reason == "symlink"


def test_a_million_files_beside_are_not_looked_at(handmade: Handmade, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = handmade()
    for listing in ("scandir", "listdir"):
        monkeypatch.setattr(os, listing, lambda *_: pytest.fail("the folder was listed"))
    assert read_adapter(folder)


# --- what the config targets, and what the file holds


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"target_modules": ["q_proj"]}, []),
        ({"target_modules": "all-linear"}, []),
        ({"target_modules": None}, []),
        ({"target_modules": ["q_proj", "v_proj"]}, ["no-factors"]),
        ({"target_modules": ["q_proj", "query_key_value"]}, []),
        ({"target_modules": ["v_proj"]}, ["not-targeted", "no-factors"]),
        ({"target_modules": "all-linear", "exclude_modules": ["q_proj"]}, []),
        ({"exclude_modules": ["q_proj"]}, ["not-targeted"]),
        ({"layers_to_transform": [0, 1], "layers_pattern": "layers"}, []),
        ({"layers_to_transform": 1}, ["not-targeted"]),
        ({"target_modules": r"^(?!.*visual).*(?:q_proj).*"}, ["unchecked"]),
        ({"target_modules": "(a*)*$"}, ["unchecked"]),
    ],
)
def test_the_factors_decide_and_the_config_is_compared(
    handmade: Handmade, shapes: Mapping[str, tuple[int, int]], fields: dict[str, Any], kinds: list[str]
) -> None:
    folder = handmade(**fields)
    assert [note.kind for note in _notes(folder, shapes)] == kinds
    assert len(read_adapter(folder, shapes)) == 2


def test_what_peft_trains_with_every_way_to_choose_layers_is_exact(
    tiny_base: Base, tmp_path: Path, shapes: Mapping[str, tuple[int, int]]
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    cases: list[dict[str, Any]] = [
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj", "lm_head"]},
        {"target_modules": r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.x)"},
        {"target_modules": ["v_proj"], "task_type": None},
    ]
    for number, case in enumerate(cases):
        torch.manual_seed(number)
        base = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
        model = get_peft_model(base, LoraConfig(**({"task_type": "CAUSAL_LM"} | case), init_lora_weights=False))
        model.save_pretrained(tmp_path / str(number))
        theirs = {
            name.removeprefix("base_model.model."): module.double().get_delta_weight("default").detach()
            for name, module in model.named_modules()
            if hasattr(module, "get_delta_weight")
        }
        _same(_deltas(tmp_path / str(number), shapes), theirs, 1e-12)
        assert {note.kind for note in _notes(tmp_path / str(number), shapes)} <= {"unchecked"}


# --- other spellings and forms


def _keys(change: Callable[[str], str]) -> Callable[[Path], None]:
    def respell(folder: Path) -> None:
        tensors = load_file(folder / TENSORS)
        save_file({change(key): tensor for key, tensor in tensors.items()}, folder / TENSORS)

    return respell


def _flat(key: str) -> str:
    side = {"A": "lora_down", "B": "lora_up"}[key.partition(".lora_")[2][0]]
    return f"lora_te_{key.removeprefix('base_model.model.').partition('.lora_')[0].replace('.', '_')}.{side}.weight"


def _kohya(folder: Path) -> None:
    _keys(_flat)(folder)
    tensors = load_file(folder / TENSORS)
    alphas = {key.replace("lora_down.weight", "alpha"): torch.tensor(4.0) for key in tensors if "lora_down" in key}
    save_file(tensors | alphas, folder / "my_lora.safetensors")
    (folder / TENSORS).unlink()
    (folder / CONFIG).unlink()


def _mlx(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    turned = {
        key.removeprefix("base_model.model.").replace("A.weight", "a").replace("B.weight", "b"): tensor.T.contiguous()
        for key, tensor in tensors.items()
    }
    save_file(turned, folder / "adapters.safetensors")
    (folder / TENSORS).unlink()
    said = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.0}, "num_layers": 2}
    (folder / CONFIG).write_text(json.dumps(said | {"model": "a/b", "batch_size": 4}))


def _double(folder: Path) -> None:
    save_file({key: tensor.double() for key, tensor in load_file(folder / TENSORS).items()}, folder / TENSORS)


FORMS: dict[str, Callable[[Path], None]] = {
    "named adapter": _keys(lambda key: key.replace(".weight", ".default.weight")),
    "without PEFT's prefix": _keys(lambda key: key.removeprefix("base_model.model.")),
    "of the model without its head": _keys(lambda key: key.replace("base_model.model.model.", "base_model.model.")),
    "multi-modal": _keys(lambda key: key.replace("model.layers", "model.language_model.layers")),
    "multi-modal, before": _keys(lambda key: key.replace("model.layers", "language_model.model.layers")),
    "compiled": _keys(lambda key: "_orig_mod." + key),
    "parallel": _keys(lambda key: "module." + key),
    "sharded": _keys(lambda key: key.replace("self_attn", "_fsdp_wrapped_module.self_attn")),
    "diffusers": _keys(lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up")),
    "diffusers, text encoder": _keys(
        lambda key: (
            "text_encoder."
            + key.removeprefix("base_model.model.")
            .replace("lora_A", "lora_linear_layer.down")
            .replace("lora_B", "lora_linear_layer.up")
        )
    ),
    "kohya with a config": _keys(_flat),
    "kohya": _kohya,
    "kohya, of the model without its head": _keys(lambda key: _flat(key).replace("lora_te_model_", "lora_te_")),
    "MLX-LM": _mlx,
    "F64": _double,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_means_what_peft_s_means(
    handmade: Handmade, shapes: Mapping[str, tuple[int, int]], tiny_base: Base, tmp_path: Path, form: str
) -> None:
    folder = handmade()
    expected = _deltas(folder, shapes)
    FORMS[form](folder)
    _same(_deltas(folder, shapes), expected)
    kinds = [note.kind for note in _notes(folder, shapes)]
    assert kinds[0] == "rewritten"
    sources = {path.name: path for path in folder.iterdir()}
    store = Store(tmp_path / "store", create=True)
    entry = store.add(folder, dimension="d", pole="p", base=tiny_base, training={"seed": 1}, tell=print)
    assert entry.training["seed"] == 1
    assert set(entry.training["rewritten_from"]) <= set(sources)  # type: ignore[arg-type]
    for name in (CONFIG, TENSORS):
        assert (store.path("p") / name).is_file()
    again = Store(store.folder).load("p")
    _same(_deltas(store.path("p"), shapes), expected)
    assert (
        again.digest
        == entry.digest
        == Store(tmp_path / "other", create=True)
        .add(folder, dimension="d", pole="p", base=tiny_base, tell=print)
        .digest
    )


def test_a_store_s_own_form_is_read_by_peft(handmade: Handmade, tiny_base: Base, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = handmade()
    _kohya(folder)
    store = Store(tmp_path / "store", create=True)
    store.add(folder, dimension="d", pole="p", base=tiny_base, tell=print)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base.folder), store.path("p")).double()
    theirs = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    _same(_deltas(folder, tiny_base.layers().linear_shapes()), theirs, 1e-12)


def test_ranks_alphas_and_patterns_survive_other_names(
    tiny_adapter: Callable[..., Path], shapes: Mapping[str, tuple[int, int]], tmp_path: Path
) -> None:
    patterns = {
        "rslora": True,
        "rank_pattern": {"q_proj": 2, r"model\.layers\.0\.mlp\.(up|gate)_proj": 3},
        "alpha_pattern": {"^model.layers.1.*": 5},
        "targets": "all-linear",
    }
    shutil.copytree(tiny_adapter(**patterns), tmp_path / "a")
    expected = _deltas(tmp_path / "a", shapes)
    _keys(lambda key: key.replace(".weight", ".default.weight"))(tmp_path / "a")
    _same(_deltas(tmp_path / "a", shapes), expected)


def test_a_pattern_means_the_names_of_the_file(handmade: Handmade, shapes: Mapping[str, tuple[int, int]]) -> None:
    """An alpha_pattern of a multi-modal adapter names layers as they were called there, or by their ends."""
    folder = handmade(alpha_pattern={r"^model\.language_model\.layers\.0\..*": 40, "q_proj": 6})
    FORMS["multi-modal"](folder)
    first, second = read_adapter(folder, shapes).values()
    assert (first.scaling, second.scaling) == (20.0, 3.0)


def test_a_file_alone_is_an_adapter(handmade: Handmade, shapes: Mapping[str, tuple[int, int]]) -> None:
    folder = handmade()
    expected = _deltas(folder, shapes)
    _kohya(folder)
    _same(_deltas(folder / "my_lora.safetensors", shapes), expected)


@pytest.mark.parametrize(
    ("parameters", "reason", "word"),
    [
        ({"rank": 2, "scale": 10.0, "alpha": 16}, "bad-config", "scale and an alpha"),
        ({"rank": 2}, "bad-config", "lora_parameters.scale"),
        ({"rank": 2, "scale": -1.0}, "bad-config", "lora_parameters.scale"),
        (None, "bad-config", "lacks 'lora_parameters'"),
    ],
)
def test_an_mlx_config_that_says_no_single_scale_is_refused(
    handmade: Handmade, shapes: Mapping[str, tuple[int, int]], parameters: Any, reason: str, word: str
) -> None:
    folder = handmade()
    _mlx(folder)
    (folder / CONFIG).write_text(json.dumps({"fine_tune_type": "lora", "lora_parameters": parameters}))
    with pytest.raises(AdapterError, match=word) as caught:
        read_adapter(folder, shapes)
    assert caught.value.reason == reason
    (folder / CONFIG).write_text(json.dumps({"fine_tune_type": "dora", "lora_parameters": parameters}))
    with pytest.raises(AdapterError, match="soupmix adapters extract"):
        read_adapter(folder, shapes)


def test_what_mlx_calls_its_base_is_kept(handmade: Handmade, tiny_base: Base, tmp_path: Path) -> None:
    folder, store = handmade(), Store(tmp_path / "store", create=True)
    _mlx(folder)
    store.add(folder, dimension="d", pole="p", base=tiny_base, tell=print)
    assert json.loads((store.path("p") / CONFIG).read_text())["base_model_name_or_path"] == "a/b"


def test_an_mlx_alpha_that_is_the_rank_says_the_same_either_way(
    handmade: Handmade, shapes: Mapping[str, tuple[int, int]]
) -> None:
    folder = handmade()
    expected = _deltas(folder, shapes)
    _mlx(folder)
    parameters = {"rank": 2, "scale": 2.0, "alpha": 2}
    (folder / CONFIG).write_text(json.dumps({"lora_parameters": parameters}))
    _same(_deltas(folder, shapes), expected)


def test_a_name_that_could_be_two_layers_is_refused(handmade: Handmade) -> None:
    folder = handmade()
    _keys(_flat)(folder)
    twins = {"model.layers.0.self_attn.q_proj": (32, 32), "model.layers.0.self.attn.q_proj": (32, 32)}
    with pytest.raises(AdapterError, match="may be") as caught:
        read_adapter(folder, twins)
    assert caught.value.reason == "bad-key"


def test_the_base_says_what_its_first_part_is_called() -> None:
    base = ["transformer.h.0.attn.c_proj", "transformer.h.1.attn.c_proj", "lm_head"]
    keys = [f"base_model.model.h.{number}.attn.c_proj.lora_A.weight" for number in range(2)]
    assert [part.module for part in parts_of(keys, base, "x").values()] == base[:2]
    towers = ["text.h.0.q", "vision.h.0.q"]
    with pytest.raises(AdapterError, match=r"may be text\.h\.0\.q or vision\.h\.0\.q"):
        parts_of(["h.0.q.lora_A.weight"], towers, "x")
    assert parts_of(["vision.h.0.q.lora_A.weight"], towers, "x")["vision.h.0.q.lora_A.weight"].module == "vision.h.0.q"


def test_two_names_of_one_tensor_are_refused() -> None:
    keys = ["base_model.model.model.a.lora_A.weight", "lora_te_model_a.lora_down.weight"]
    with pytest.raises(AdapterError, match=r"which are one tensor of model\.a") as caught:
        parts_of(keys, ["model.a"], "x")
    assert caught.value.reason == "bad-key"


def test_a_name_too_long_is_no_part() -> None:
    assert parts_of(["x" * 242 + ".lora_A.weight", "x" * 243 + ".lora_A.weight"], [], "x").keys() == {
        "x" * 242 + ".lora_A.weight"
    }


def test_hostile_names_take_no_time() -> None:
    base = [f"model.layers.{layer}.mlp.{name}" for layer in range(200) for name in ("up", "down", "gate")]
    keys = [(f"{number:06d}" + ".lora_A" * 40)[:242] + ".lora_B.weight" for number in range(4_000)]
    keys += [("module." * 34 + f"{number:04d}.lora_A.weight")[-256:] for number in range(1_000)]
    started = time.process_time()
    assert len(parts_of(keys, base, "x")) == len(keys)
    assert time.process_time() - started < 5


def test_names_without_a_scaling_need_a_config(handmade: Handmade, shapes: Mapping[str, tuple[int, int]]) -> None:
    folder = handmade()
    (folder / CONFIG).unlink()
    with pytest.raises(AdapterError, match=CONFIG) as caught:
        read_adapter(folder, shapes)
    assert caught.value.reason == "missing"


# --- weights that are saved beside factors


def _with_embeddings(folder: Path, base: Base, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As PEFT saves them when a vocabulary was resized; the base's head is tied to its embeddings."""
    saved = change(load_file(base.folder / "model.safetensors")["model.embed_tokens.weight"])
    more = {f"base_model.model.{name}.weight": saved.clone() for name in ("model.embed_tokens", "lm_head")}
    save_file(load_file(folder / TENSORS) | more, folder / TENSORS)


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved,
        lambda saved: saved.bfloat16(),
        lambda saved: saved.double(),
        lambda saved: torch.cat([saved, torch.ones(3, saved.shape[1])]),
        lambda saved: saved[:-2].contiguous(),
    ],
    ids=["the same", "rounded", "in F64", "more rows", "fewer rows"],
)
def test_embeddings_that_are_the_base_s_own_are_left_out(
    handmade: Handmade, tiny_base: Base, tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    folder = handmade()
    expected = _deltas(folder, tiny_base.layers().linear_shapes())
    _with_embeddings(folder, tiny_base, change)
    store, notes = Store(tmp_path / "store", create=True), list[Finding]()
    store.add(folder, dimension="d", pole="p", base=tiny_base, tell=notes.append)
    assert [note.kind for note in notes] == ["unchanged"]
    _same(_deltas(store.path("p"), tiny_base.layers().linear_shapes()), expected)


def _nudged(saved: torch.Tensor) -> torch.Tensor:
    saved[-1, -1] += 1e-3
    return saved


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_nudged, None), (lambda saved: saved.T.contiguous(), "wrong-base"), (torch.flatten, "wrong-base"),
     (lambda saved: torch.cat([saved + 1, saved]), "wrong-base"), (lambda saved: saved[1:].contiguous(), "wrong-base")],
)  # fmt: skip
def test_embeddings_that_changed_are_whole_weights_of_the_base(
    handmade: Handmade,
    tiny_base: Base,
    tmp_path: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    reason: str | None,
) -> None:
    folder, notes = handmade(), list[Finding]()
    _with_embeddings(folder, tiny_base, change)
    store = Store(tmp_path / "store", create=True)
    if reason is None:
        store.add(folder, dimension="d", pole="p", base=tiny_base, tell=notes.append)
        assert [note.kind for note in notes] == ["whole"]
    else:
        with pytest.raises(AdapterError, match="of the base it must be") as caught:
            store.add(folder, dimension="d", pole="p", base=tiny_base)
        assert caught.value.reason == reason


def test_a_full_model_is_no_adapter(tiny_base: Base) -> None:
    with pytest.raises(AdapterError, match="soupmix adapters extract") as caught:
        read_adapter(tiny_base.folder)
    assert caught.value.reason == "full-model"


# --- what lies beside, compared with the base


def _template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def _tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    said["added_tokens"].append({"id": 999, "content": "<|own|>", "special": True})
    path.write_text(json.dumps(said))


def _fifo(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    os.mkfifo(folder / "tokenizer_config.json")


@pytest.mark.parametrize(
    ("change", "kinds", "word"),
    [
        (lambda folder: None, [], ""),
        (_template, ["template"], "template"),
        (_tokens, ["tokenizer"], "<|own|>"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"added_tokens": [{'), ["tokenizer"], "not compared"),
        (
            lambda folder: (folder / "tokenizer.json").write_text('{"added_tokens":' + "[" * 9**6),
            ["tokenizer"],
            "not JSON",
        ),
        (lambda folder: os.truncate(folder / "tokenizer.json", 65 << 20), ["tokenizer"], "larger than"),
        (_fifo, ["template", "tokenizer"], "not a regular file"),
        (lambda folder: (folder / "chat_template.jinja").symlink_to("/etc/passwd"), ["template"], "symbolic link"),
        (lambda folder: (folder / "tokenizer_config.json").write_text('{"chat_template": [[1]]}'), [], ""),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text(
                '{"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "{{ x }}"}]}'
            ),
            ["template"],
            "template",
        ),
    ],
)
def test_a_tokenizer_or_template_that_differs_is_said(
    handmade: Handmade, tiny_base: Base, change: Callable[[Path], object], kinds: list[str], word: str
) -> None:
    folder = handmade(base_model_name_or_path=f"org/{tiny_base.label}")
    for path in tiny_base.folder.glob("*token*"):
        shutil.copy(path, folder)
    change(folder)
    notes = _notes(folder, tiny_base.layers().linear_shapes(), tiny_base)
    assert [(note.kind, note.subject) for note in notes] == [(kind, "tokenizer") for kind in kinds]
    assert all(word in note.message for note in notes)


def test_of_a_token_that_differs_the_beginning_is_said(handmade: Handmade, tiny_base: Base) -> None:
    folder, token = handmade(base_model_name_or_path=tiny_base.label), "!" + "\x1b" * 80
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 0, "content": token}]}))
    (note,) = _notes(folder, tiny_base.layers().linear_shapes(), tiny_base)
    assert f"(the first token that differs: {token[:60]!a})" in note.message


def test_another_name_of_the_base_is_said(handmade: Handmade, tiny_base: Base) -> None:
    (note,) = _notes(handmade(base_model_name_or_path="org/other-8b"), tiny_base.layers().linear_shapes(), tiny_base)
    assert note.kind == "base-name"
    assert "org/other-8b" in note.message


def test_notes_are_logged_unless_somebody_asks(
    handmade: Handmade, tiny_base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Store(tmp_path / "s", create=True).add(handmade(target_modules=["v_proj"]), dimension="d", pole="p", base=tiny_base)
    assert "does not target" in caplog.text
