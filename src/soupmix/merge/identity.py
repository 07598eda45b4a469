"""The merge identity: the digest that names a soup, and the only key under which what it makes may be cached."""

from collections import Counter
from collections.abc import Iterable, Mapping

from soupmix.files import digest_parts
from soupmix.modes import FULL, Mode, check_mode

__all__ = ["base_identity", "merge_identity"]


def merge_identity(
    *,
    base_digest: str,
    weights: Iterable[tuple[str, int]],
    method: str,
    dtype: str,
    policy_digest: str,
    tenant_salt: str = "",
    mode: Mode = FULL,
) -> str:
    """ "sha256:<hex>" of everything that decides what a soup computes and for whom it was allowed.

    Args:
        base_digest: digest of the base model.
        weights: (adapter digest, granted weight in millionths), such as `Grant.weighted`. What comes twice counts as its
            sum, which is what is computed; zeros are dropped, as they change nothing.
        method: name of the method. dtype: of the arithmetic's result, such as "BF16".
        policy_digest: of the policy that granted the weights.
        tenant_salt: keeps tenants apart in a shared cache, and digests of small weight sets from being guessed.
        mode: where the soup acts, see `soupmix.modes`; a merge made at load time acts everywhere.

    Raises:
        RecipeError: there is no such mode (reason "mode").
        TypeError: `weights` is a mapping, in which one of two names of an adapter would be lost.
    """
    if isinstance(weights, Mapping):
        raise TypeError("merge_identity takes pairs of digest and millionths, not a mapping: see Grant.weighted")
    check_mode(mode)
    sums = Counter[str]()
    for digest, micro in weights:
        sums[digest] += micro
    parts = {"base": base_digest, "method": method, "dtype": dtype, "policy": policy_digest, "tenant": tenant_salt}
    parts |= {} if mode == FULL else {"mode": mode}
    parts |= {f"adapter {digest}": str(micro) for digest, micro in sums.items() if micro}
    return f"sha256:{digest_parts('soupmix.merge.v1', parts)}"


def base_identity(*, base_digest: str, dtype: str, tenant_salt: str = "") -> str:
    """ "sha256:<hex>" of everything that decides what the bare base computes; arguments as of `merge_identity`.

    The key of keys and values of a prompt that is computed without any soup. It is never equal to a merge identity.
    """
    parts = {"base": base_digest, "dtype": dtype, "tenant": tenant_salt}
    return f"sha256:{digest_parts('soupmix.base.v1', parts)}"
