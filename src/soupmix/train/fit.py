"""Train one LoRA adapter from pairs, with trl and peft on the CPU."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from soupmix.base import Base, load_model, load_tokenizer
from soupmix.errors import TrainingError
from soupmix.files import canonical_json
from soupmix.train.examples import Example, asked_text, check_marks, is_chat, longest_of, messages, token_ids
from soupmix.unreported import unreported

__all__ = ["TrainingRecipe", "fit"]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How an adapter is trained; the same recipe, pairs and seeds give the same adapter on the same kind of machine.

    Attributes:
        method: "sft" (learn the chosen answers) or "dpo" (Rafailov et al. 2023, plus `sft_weight` x the SFT loss on chosen).
        init_seed: seed of the LoRA initialisation; shared by all adapters, so that their A factors can be averaged.
        seed: seed of the order of the data.
        response_tokens: answers are cut here; a cut answer teaches no end.
    """

    method: str = "sft"
    rank: int = 8
    alpha: int = 16
    learning_rate: float = 7e-4
    epochs: float = 1.0
    batch: int = 4
    init_seed: int = 0
    seed: int = 0
    response_tokens: int = 224
    beta: float = 0.1
    sft_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("sft", "dpo"):
            raise TrainingError(f"training method '{self.method}' is not known; choose sft or dpo", reason="method")


def fit(
    base: Base, examples: Sequence[Example], recipe: TrainingRecipe, folder: Path, *, left_out: Sequence[Example] = ()
) -> dict[str, Any]:
    """Train an adapter into `folder` (adapter_config.json, adapter_model.safetensors in bf16); return a summary.

    Args:
        left_out: examples that are measured on afterwards; what is wrong with them is told now.

    Raises:
        TrainingError: too few pairs to fill one batch ("few-pairs"), DPO without unwanted answers ("no-pairs"), or as
            `token_ids` and `check_marks`.
    """
    import torch
    from datasets import disable_progress_bars
    from transformers import PrinterCallback, set_seed
    from transformers.utils import logging

    if len(examples) < recipe.batch:
        raise TrainingError(
            f"{len(examples)} usable pairs are too few for a batch of {recipe.batch}", reason="few-pairs"
        )
    if recipe.method == "dpo" and not all(each.rejected for each in examples):
        raise TrainingError(
            "DPO needs an answer that is not wanted beside every one that is; give pairs, or --method sft",
            reason="no-pairs",
        )
    logging.disable_progress_bar()
    disable_progress_bars()
    tokenizer = load_tokenizer(base.folder, base.chat_template)
    tokenizer.padding_side = "right"
    asked_text(tokenizer, examples[0])  # trl renders in this process: not before it is seen to end
    model = load_model(base.folder, torch.bfloat16)
    _check(tokenizer, [*examples, *left_out], recipe, longest_of(model.config))
    set_seed(recipe.init_seed)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # so that it goes with the folder if this is killed
        with unreported():
            trainer = _trainer(model, tokenizer, examples, recipe, scratch)
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, where only data goes
        outcome = trainer.train()
    _save(trainer.model.to(torch.bfloat16), base, folder)
    losses = [float(row["loss"]) for row in trainer.state.log_history if "loss" in row] or [outcome.training_loss]
    summary = {**asdict(recipe), "pairs": len(examples), "steps": outcome.global_step, "loss": [losses[0], losses[-1]]}
    return summary | _cut(tokenizer, examples, recipe)


def _check(tokenizer: Any, examples: Sequence[Example], recipe: TrainingRecipe, longest: int) -> None:
    """Refuse what trl would leave out or cut without a word, and what cannot be measured afterwards."""
    check_marks(tokenizer, (each for each in examples if each.place))
    is_dpo = recipe.method == "dpo"
    most = longest if is_dpo else recipe.response_tokens
    for each in examples:
        token_ids(tokenizer, each, most, longest)
        if each.rejected and (is_dpo or each.place):
            token_ids(tokenizer, replace(each, chosen=each.rejected), most, longest)


def _cut(tokenizer: Any, examples: Sequence[Example], recipe: TrainingRecipe) -> dict[str, int]:
    """How many answers of somebody's are learned without their end, if any."""
    if recipe.method == "dpo":
        return {}
    texts = [each.chosen for each in examples if each.place]
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    cut = sum(length >= recipe.response_tokens for length in lengths)
    return {"cut": cut} if cut else {}


def _save(adapter: Any, base: Base, folder: Path) -> None:
    """Save in PEFT's format, with the base by name and the target modules in a fixed order."""
    adapter.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["base_model_name_or_path"] = base.label
    config["target_modules"] = sorted(config["target_modules"])
    path.write_bytes(canonical_json(config))


def _trainer(model: Any, tokenizer: Any, examples: Sequence[Example], recipe: TrainingRecipe, scratch: str) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    lora = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0
    )
    shared = _settings(recipe, scratch)
    if recipe.method == "dpo":
        config = DPOConfig(
            **shared,
            beta=recipe.beta,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, recipe.sft_weight],
            precompute_ref_log_probs=True,
            max_length=None,
        )
        rows = Dataset.from_list([_dpo_row(tokenizer, each) for each in examples])
        return DPOTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=lora)
    config = SFTConfig(**shared, max_length=None)
    longest = longest_of(model.config)
    rows = Dataset.from_list([_sft_row(tokenizer, each, recipe.response_tokens, longest) for each in examples])
    return SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=lora)


def _settings(recipe: TrainingRecipe, scratch: str) -> dict[str, Any]:
    """What both methods tell their trainer."""
    return {
        "output_dir": scratch,
        "per_device_train_batch_size": recipe.batch,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 4,
        "weight_decay": 0.0,
        "adam_beta2": 0.99,
        "max_grad_norm": 1.0,
        "seed": recipe.seed,
        "use_cpu": True,
        "bf16": True,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": [],
        "logging_steps": 4,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _sft_row(tokenizer: Any, example: Example, most: int, longest: int) -> dict[str, list[int]]:
    """Token ids, and labels that are -100 outside of the answer."""
    prompt, answer = token_ids(tokenizer, example, most, longest)
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def _dpo_row(tokenizer: Any, example: Example) -> dict[str, Any]:
    if isinstance(example.asked, str) and not is_chat(tokenizer):
        return {"prompt": example.asked, "chosen": example.chosen, "rejected": example.rejected}
    return {
        "prompt": messages(example.asked),
        "chosen": [{"role": "assistant", "content": example.chosen}],
        "rejected": [{"role": "assistant", "content": example.rejected}],
    }
