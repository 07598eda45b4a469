"""The merge identity: the digest that names a soup, and the only key under which what it makes may be cached."""

from collections.abc import Mapping

from soupmix.files import digest_parts

__all__ = ["merge_identity"]


def merge_identity(
    *, base_digest: str, weights: Mapping[str, int], method: str, dtype: str, policy_digest: str, tenant_salt: str = ""
) -> str:
    """ "sha256:<hex>" of everything that decides what a soup computes and for whom it was allowed.

    Args:
        base_digest: digest of the base model.
        weights: adapter digest -> granted weight in millionths. Zeros are dropped: they change nothing.
        method: "delta" or "factor". dtype: of the arithmetic's result, such as "BF16".
        policy_digest: of the policy that granted the weights.
        tenant_salt: keeps tenants apart in a shared cache, and digests of small weight sets from being guessed.
    """
    parts = {"base": base_digest, "method": method, "dtype": dtype, "policy": policy_digest, "tenant": tenant_salt}
    parts |= {f"adapter {digest}": str(micro) for digest, micro in weights.items() if micro}
    return f"sha256:{digest_parts('soupmix.merge.v1', parts)}"
