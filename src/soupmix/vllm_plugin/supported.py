"""Which vLLM this plug-in knows, and which of its features soups go together with. Everything else is refused by name."""

from collections.abc import Callable
from typing import Any, Final

from soupmix.errors import RecipeError

__all__ = ["VERSIONS", "check_features", "check_version"]

VERSIONS: Final = ("0.32.0",)
"""Versions whose inner parts `hooks` knows. They change with every minor version."""


def check_version(version: str) -> None:
    """Raise RecipeError (reason "vllm-version") unless the hooks are known to fit this version of vLLM."""
    if version.partition("+")[0] not in VERSIONS:
        raise RecipeError(
            f"soups are served inside vLLM {' or '.join(VERSIONS)}, whose inner parts are known, and this is {version}; "
            "install one of those",
            reason="vllm-version",
        )


def _more(count: object) -> bool:
    return isinstance(count, int) and count > 1


_REFUSED: Final[tuple[tuple[str, str, Callable[[Any], object]], ...]] = (
    ("speculative decoding", "--speculative-config", lambda c: c.speculative_config),
    ("stock LoRA adapters", "--enable-lora", lambda c: c.lora_config),
    ("pipeline parallelism", "--pipeline-parallel-size", lambda c: _more(c.parallel_config.pipeline_parallel_size)),
    ("data parallelism", "--data-parallel-size", lambda c: _more(c.parallel_config.data_parallel_size)),
    (
        "context parallelism",
        "--prefill-context-parallel-size and --decode-context-parallel-size",
        lambda c: (
            _more(c.parallel_config.prefill_context_parallel_size)
            or _more(c.parallel_config.decode_context_parallel_size)
        ),
    ),
    ("expert parallelism", "--enable-expert-parallel", lambda c: c.parallel_config.enable_expert_parallel),
    ("micro-batches", "--enable-dbo", lambda c: c.parallel_config.use_ubatching),
    ("KV transfer", "--kv-transfer-config", lambda c: c.kv_transfer_config),
    ("quantised weights", "--quantization", lambda c: c.model_config.quantization),
    ("pooling models", "--runner", lambda c: c.model_config.runner_type != "generate"),
    ("fast prefill", "--kv-sharing-fast-prefill", lambda c: c.cache_config.kv_sharing_fast_prefill),
)


def check_features(config: Any) -> None:
    """Raise RecipeError (reason "vllm-feature") for a `VllmConfig` with a feature that soups were not made for.

    What is left is served: prefix caching (by the salt), chunked prefill, tensor parallelism, compilation and CUDA graphs.
    """
    for what, option, has in _REFUSED:
        if has(config):
            raise RecipeError(
                f"soups are not served together with {what} in vLLM: start it without {option}, or without SOUPMIX_VLLM",
                reason="vllm-feature",
            )
