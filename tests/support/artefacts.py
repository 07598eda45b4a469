"""Write one of everything that soupmix writes, into an empty folder, the same bytes on every machine.

    python tests/support/artefacts.py OUT

It uses public ways only: the command line, and library calls by their public names. `tests/whole/test_artefacts.py` holds the
SHA-256 of every file to `tests/golden/artefacts.json`, so a change inside that changes what comes out is seen.

Weights and tensors are whole numbers over powers of two, so that every sum is exact in whichever order a processor takes it.
Answers are greedy, from a picoscopic model whose first choice is ahead of the second by 0.1 and more, where fp32 loses 1e-5.
What differs from run to run is fixed: the clock of the audit log (`time.time`), its random name and keys (`secrets`), the
times of signed sets (`now=`, for ten years), private keys, and the version of soupmix that results carry (`VERSION`).
Left out are adapters that are cut to a rank, into which LAPACK's last bits go, refusals by a rule on an audit log, and what is
said on stderr.
"""

import contextlib
import io
import json
import os
import random
import secrets
import string
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SEED = 6
NOW = datetime(2026, 11, 29, 1, 2, 3, tzinfo=UTC)
VERSION = "0.1.0"
LAYERS, HIDDEN, INNER, HEADS = 2, 32, 48, 4
SPECIALS = ("<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Matrix = Sequence[Sequence[float]]


def main(out: Path) -> None:
    """Make the inputs, then everything from them."""
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    os.environ["SOUPMIX_CACHE"] = os.environ["XDG_CACHE_HOME"] = str(out.with_name(f"{out.name}-cache"))
    fix_clock_and_chance()
    import soupmix.version

    soupmix.version.__version__ = VERSION
    make_inputs()
    grants()
    merges()
    answers()
    signed_sets()
    audit()


def fix_clock_and_chance() -> None:
    """The clock and the random numbers of the audit log; before anything of soupmix is imported."""
    drawn = random.Random(7)
    time.time = NOW.timestamp
    secrets.token_bytes = lambda nbytes=None: drawn.randbytes(nbytes or 32)
    secrets.token_hex = lambda nbytes=None: drawn.randbytes(nbytes or 32).hex()


def command(*arguments: str, to: str | None = None, code: int = 0) -> str:
    """Run `soupmix ARGUMENTS` in this process; what it prints goes into the file `to`, and is returned."""
    from soupmix.cli import main

    sys.argv = ["soupmix", *arguments]
    printed, told, found = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        try:
            main()
        except SystemExit as stop:
            found = stop.code if isinstance(stop.code, int) else 1
    if found != code:
        raise SystemExit(f"soupmix {' '.join(arguments)}: exit code {found}, not {code}: {told.getvalue()}")
    if to is not None:
        write(to, printed.getvalue().encode())
    return printed.getvalue()


# inputs


def make_inputs() -> None:
    write_base(Path("base"))
    adapters = {"calm": (4, 4, False, ALL), "loud": (4, 16, False, ALL), "plain": (2, 4, False, ("q_proj", "v_proj"))}
    adapters |= {"kept": (4, 8, True, ("down_proj",))}
    for number, (name, (rank, alpha, rslora, targets)) in enumerate(adapters.items()):
        write_adapter(Path("adapters") / name, rank, alpha, targets, rslora=rslora, seed=number)
        said = ["--dimension", "tone" if name in ("calm", "loud") else name, "--pole", name, "--licence", "apache-2.0"]
        command("adapters", "add", f"adapters/{name}", *said, "--tag", "test", "--base", "base", "--store", "store")
    command("adapters", "budget", "2.25", "--store", "store")
    command("adapters", "list", "--approve", "--store", "store", to="printed/approve.yaml")
    command("adapters", "list", "--json", "--store", "store", to="printed/adapters.json")
    write("law.yaml", LAW.encode())
    approved = "".join(f"  {line}\n" for line in Path("printed/approve.yaml").read_text().splitlines())
    write("organisation.yaml", ORGANISATION.replace("APPROVED\n", approved).encode())
    write("recipe.yaml", RECIPE.encode())
    for number, name in enumerate(("signer", "root", "targets", "online")):
        write_key(Path("keys") / f"{name}.pem", number)
    write_model_key(Path("keys/model.pem"))
    write("prompts.jsonl", b"".join(compact(line) + b"\n" for line in lines()))
    write("prompts.csv", b"id,prompt,calm\nfirst,why,0.5\nsecond,how,0.25\nthird,when,1\n")


LAW = """\
tier: law
issuer: Example
version: 1
rules:
  - {id: not-loud, rule: deny, adapter: loud, scope: {audience: [minor]}, public_reason: minors are not shouted at}
  - {id: calmly, rule: bounds, adapter: loud, at_most: 0.75, internal_reason: by agreement}
obligations:
  - {oblige: disclose, what: personalisation}
"""
ORGANISATION = """\
tier: organisation
issuer: acme
version: 3
rules:
APPROVED
  - {id: tone, rule: group, dimension: tone, at_most: 1.25}
  - {id: all, rule: budget, at_most: 1.5, scope: {audience: [public]}}
  - {id: plainly, rule: bounds, adapter: plain, at_most: 0.75, mode: refuse}
  - {id: chosen, rule: source, adapter: plain, allow: [explicit]}
"""
RECIPE = """\
base: base
store: store
weights: {calm: 0.5, kept: 0.25}
policies: [law.yaml, organisation.yaml]
attributes: {audience: employee}
method: delta
as: model
dtype: bf16
shard_size: 60000
"""
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}


def letters() -> list[str]:
    """GPT-2's 256 letters for bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in shown] + [chr(256 + number) for number in range(256 - len(shown))]


def write_base(folder: Path) -> None:
    """A Llama of two layers in fp32 with a byte-level tokenizer; every weight a whole number over 64."""
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *letters()])}
    drawn = random.Random(SEED)
    tensors: dict[str, Matrix] = {"model.embed_tokens.weight": matrix(drawn, len(vocabulary), HIDDEN, 64)}
    for layer in range(LAYERS):
        here = f"model.layers.{layer}"
        tensors |= {f"{here}.{name}.weight": matrix(drawn, *shape, 12) for name, shape in SHAPES.items()}
        tensors |= {f"{here}.{name}_layernorm.weight": [[1.0] * HIDDEN] for name in ("input", "post_attention")}
    shown = {token for token in vocabulary if token in string.ascii_letters + string.digits}
    head = matrix(drawn, len(vocabulary), HIDDEN, 64)
    tensors["lm_head.weight"] = [
        row if token in shown else [0.0] * HIDDEN for token, row in zip(vocabulary, head, strict=True)
    ]
    tensors["model.norm.weight"] = [[1.0] * HIDDEN]
    flat = {name for name in tensors if "norm" in name}
    write(folder / "model.safetensors", safetensors(tensors, flat))
    write(folder / "config.json", pretty(CONFIG | {"vocab_size": len(vocabulary)}))
    write(folder / "tokenizer.json", pretty(tokenizer(vocabulary)))
    write(folder / "tokenizer_config.json", pretty(TOKENIZER_CONFIG))


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": None,
    "eos_token_id": 1,
    "head_dim": HIDDEN // HEADS,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "max_position_embeddings": 512,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": HEADS // 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
TOKENIZER_CONFIG = {
    "additional_special_tokens": list(SPECIALS[2:]),
    "chat_template": TEMPLATE,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|end|>",
    "pad_token": "<pad>",
    "padding_side": "left",
    "tokenizer_class": "PreTrainedTokenizerFast",
}


def tokenizer(vocabulary: Mapping[str, int]) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": []}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **plain} for number, token in enumerate(SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }


def write_adapter(folder: Path, rank: int, alpha: int, targets: Sequence[str], *, rslora: bool, seed: int) -> None:
    """A PEFT LoRA folder; every factor a whole number over 64."""
    drawn, tensors = random.Random(100 + seed), {}
    for layer in range(LAYERS):
        for name, (out, into) in SHAPES.items():
            if name.rpartition(".")[2] in targets:
                path = f"base_model.model.model.layers.{layer}.{name}"
                tensors[f"{path}.lora_A.weight"] = matrix(drawn, rank, into, 16)
                tensors[f"{path}.lora_B.weight"] = matrix(drawn, out, rank, 16)
    config = {
        "base_model_name_or_path": "base",
        "bias": "none",
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(targets),
        "task_type": "CAUSAL_LM",
        "use_rslora": rslora,
    }
    write(folder / "adapter_model.safetensors", safetensors(tensors))
    write(folder / "adapter_config.json", pretty(config))


def matrix(drawn: random.Random, rows: int, columns: int, most: int) -> Matrix:
    return [[drawn.randint(-most, most) / 64 for _ in range(columns)] for _ in range(rows)]


def safetensors(tensors: Mapping[str, Matrix], flat: set[str] | frozenset[str] = frozenset()) -> bytes:
    """fp32 tensors as a safetensors file; those named in `flat` have one dimension."""
    header, parts, start = {}, [], 0
    for name, rows in sorted(tensors.items()):
        data = b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
        shape = [len(rows[0])] if name in flat else [len(rows), len(rows[0])]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, start + len(data)]}
        parts.append(data)
        start += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def write_key(path: Path, number: int) -> None:
    """An Ed25519 key that everybody knows."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _write_private(path, Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def write_model_key(path: Path) -> None:
    """An ECDSA P-256 key that everybody knows."""
    from cryptography.hazmat.primitives.asymmetric import ec

    _write_private(path, ec.derive_private_key(12345678901234567890, ec.SECP256R1()))


def _write_private(path: Path, key: Any) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write(path, private)
    path.chmod(0o600)
    write(path.with_suffix(".pub.pem"), public)


def lines() -> Iterator[dict[str, Any]]:
    """A batch: people, a person twice, nobody, several answers, and everything that can be wrong with a line."""
    chat, plain = "/v1/chat/completions", "/v1/completions"

    def line(name: str, url: str, **body: Any) -> dict[str, Any]:
        return {"custom_id": name, "method": "POST", "url": url, "body": {"model": "base", "max_tokens": 8, **body}}

    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    yield line("nobody", chat, messages=said("why"))
    yield line("calm", chat, messages=said("why"), soup={"weights": {"calm": 0.5}})
    yield line("clamped", chat, messages=said("why"), soup={"weights": {"calm": 1, "loud": 1}})
    yield line("calm again", chat, messages=said("why"), soup={"weights": {"calm": 0.5}}, user="ada")
    stated = {"attributes": {"audience": "employee"}, "sources": {"plain": "explicit"}}
    yield line("stated", chat, messages=said("how"), soup={"weights": {"plain": 0.75, "kept": 0.25}, **stated})
    yield line("two prompts", plain, prompt=["once", "twice"], soup={"weights": {"kept": 1}})
    yield line("stopped", plain, prompt="once", stop=["A"], max_tokens=24)
    yield line("refused", chat, messages=said("why"), soup={"weights": {"plain": 1}, **stated})
    yield line("unknown adapter", chat, messages=said("why"), soup={"weights": {"nobody": 1}})
    yield line("bad weight", chat, messages=said("why"), soup={"weights": {"calm": "lots"}})
    yield line("unknown field", chat, messages=said("why"), tools=[])
    yield line("another model", chat, messages=said("why"), model="gpt-9")
    yield {"custom_id": "no method", "url": chat, "body": {}}


# what is made of them

POLICIES = ("--policy", "law.yaml", "--policy", "organisation.yaml", "--store", "store")
ADA = ("-w", "calm=0.5,loud=0.25,plain=0.75", "--attribute", "audience=employee", "--source", "explicit")


def grants() -> None:
    """Grant records, refusals, and what can be said about policies."""
    asked = {
        "granted": ADA,
        "clamped": ("-w", "calm=1,loud=1,kept=0.3", "--attribute", "audience=public", "--source", "stored"),
        "denied": ("-w", "loud=1,calm=0.25", "--attribute", "audience=minor"),
        "unstated": ("-w", "plain=0.5"),
        "nothing": ("-w", "calm=0"),
    }
    for name, request in asked.items():
        command("clamp", *request, *POLICIES, "--json", to=f"grants/{name}.json")
        command("clamp", *request, *POLICIES, "--internal", to=f"grants/{name}.txt")
    command("clamp", *ADA, "--store", "store", "--json", to="grants/open.json")
    command("clamp", *asked["clamped"], *POLICIES, "--metric", "delta", "--json", to="grants/by-delta.json")
    command("clamp", *asked["clamped"], *POLICIES, "--strict", "--json", to="grants/strict.json", code=3)
    command("policy", "check", "law.yaml", "organisation.yaml", "--store", "store", to="printed/check.txt")
    command("policy", "diff", "organisation.yaml", "organisation.yaml", "--store", "store", to="printed/diff.txt")


def merges() -> None:
    """Adapters and models, by options and by recipe, with signatures and without; and what `verify` says of them."""
    made = {
        "adapter": (*ADA, "--method", "delta"),
        "adapter-bf16": ("-w", "calm=0.5,plain=0.3", "--source", "explicit", "--dtype", "bf16"),
        "adapter-factor": ("-w", "calm=0.5,loud=0.5", "--method", "factor"),
        "adapter-signed": (*ADA, "--sign", "keys/signer.pem", "--sign-model", "keys/model.pem"),
        "model": (*ADA, "--as", "model", "--base", "base"),
        "model-fp16": ("-w", "calm=1,loud=1", "--as", "model", "--base", "base", "--dtype", "fp16"),
        "model-of-nobody": ("-w", "calm=0", "--as", "model", "--base", "base"),
    }
    for name, options in made.items():
        command("merge", f"made/{name}", *options, *POLICIES, "--json", to=f"printed/merge-{name}.json")
    command("merge", "recipe.yaml", "made/recipe", to="printed/merge-recipe.txt")
    command("merge", "recipe.yaml", "--dry-run", to="printed/dry-run.txt")
    for name in (*made, "recipe"):
        command("verify", f"made/{name}", "--json", to=f"printed/verify-{name}.json")
    write("printed/identities.json", pretty(identities()))


def identities() -> dict[str, str]:
    """Identity tags of one soup in several dtypes and for several tenants, by the library."""
    from soupmix import Policy, Store, merge, resolve_base

    store, base = Store("store"), resolve_base("base")
    policy = Policy.load("law.yaml", "organisation.yaml", adapters=store)
    found = {"policy": policy.digest, "base": base.digest, "base files": base.files_digest()}
    for method in ("delta", "factor"):
        soup = merge(store, policy.clamp({"calm": 0.5, "loud": 0.25}), method=method)
        for dtype in ("F32", "BF16"):
            for salt in ("", "acme"):
                tag = soup.identity(base_digest=base.digest, dtype=dtype, tenant_salt=salt)
                found[f"{method} {dtype} {salt}".strip()] = tag
    return found


def answers() -> None:
    """Batches and a chat, greedy in fp32."""
    fp32 = ("--base", "base", "--dtype", "fp32", "--max-new-tokens", "8")
    greedy = (*fp32, "--model", "base", "--temperature", "0", "--rows", "4", "--length", "128")
    command("batch", "prompts.jsonl", "answers.jsonl", *greedy, *POLICIES, to="printed/batch.txt")
    columns = ("--column", "prompt=prompt", "--column", "custom_id=id", "--column", "weights.calm=calm")
    recorded = ("--audit", "batch-audit", "--who", "ada")
    command("batch", "prompts.csv", "answers.csv", *columns, *greedy, *recorded, *POLICIES, to="printed/batch-csv.txt")
    command("chat", "why", *ADA, *fp32, *POLICIES, "--temperature", "0", to="printed/chat.txt")


def signed_sets() -> None:
    """A signed set of documents at a fixed time, and a grant under it."""
    from soupmix import trust

    root, targets, online = (trust.read_private(f"keys/{name}.pem") for name in ("root", "targets", "online"))
    keys, days = trust.RoleKeys(targets, online), trust.Lifetimes(3660, 3660, 3660, 3660)
    trust.create("law-set", root_keys=[root.public_key], threshold=1, signers=[root], keys=keys, days=days, now=NOW)
    content = {"law.yaml": Path("law.yaml").read_bytes()}
    trust.publish("law-set", content, keys=keys, days=days, now=NOW)
    request = ("-w", "loud=1", "--trust", "law=law-set,law-set/metadata/1.root.json", "--store", "store")
    command("clamp", *request, "--audit", "signed-audit", "--who", "ada", "--json", to="grants/signed.json")


def audit() -> None:
    """An audit log with grants, merges, a refusal and an erasure, signed; its verdict and its proofs."""
    log = ("--audit", "audit", "--who")
    key = ("--audit-key", "keys/signer.pem")
    command("clamp", *ADA, *POLICIES, *log, "ada", *key)
    command("clamp", "-w", "calm=1,loud=1", *POLICIES, *log, "ben", *key)
    command("clamp", "-w", "nobody=1", *POLICIES, *log, "ben", *key, code=2)
    command("merge", "made/audited", *ADA, *POLICIES, *log, "ada", *key)
    command("merge", "made/audited-model", *ADA, "--as", "model", "--base", "base", *POLICIES, *log, "cleo", *key)
    command("audit", "erase", "audit", "--who", "ben", "--sign", "keys/signer.pem", to="printed/erase.txt")
    command("audit", "export", "audit", "--who", "ada", to="printed/export.jsonl")
    command("audit", "checkpoint", "audit", "--last", to="printed/checkpoint.txt")
    command("audit", "verify", "audit", "--key", "keys/signer.pub.pem", "--json", to="printed/audit.json")
    command("audit", "prove", "audit", "1", to="printed/proof.json")


# bytes


def write(path: str | Path, data: bytes) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def pretty(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
