"""The Merkle tree of RFC 6962, section 2.1: one hash for a whole log, short proofs for a part of it.

Leaves and nodes are hashed under different prefixes, so a leaf can never pose as a node. With n leaves and k the largest
power of two below n:

    MTH({}) = SHA-256()      MTH({d}) = SHA-256(0x00 || d)      MTH(D) = SHA-256(0x01 || MTH(D[:k]) || MTH(D[k:]))
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Self

__all__ = ["Tree", "check_consistency", "check_inclusion", "consistency_proof", "inclusion_proof", "leaf_hash"]


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf, 32 bytes."""
    return sha256(b"\0" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that only grows, kept as the roots of its complete subtrees: log2(n) hashes, not n.

    Attributes:
        size: number of leaves.
        frontier: roots of the complete subtrees, largest (leftmost) first; one per 1 in the binary form of `size`.
    """

    __slots__ = ("frontier", "size")

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        """Raises `ValueError` if there is not one hash of 32 bytes per 1 in the binary form of `size`."""
        self.size = size
        self.frontier = list(frontier)
        if size < 0 or len(self.frontier) != size.bit_count() or any(len(each) != 32 for each in self.frontier):
            raise ValueError(
                f"a tree of {size} leaves has another frontier than {len(self.frontier)} hashes of 32 bytes"
            )

    def add(self, leaf: bytes) -> None:
        """Append a leaf by its hash."""
        merged, size = leaf, self.size
        while size & 1:
            merged = _node(self.frontier.pop(), merged)
            size >>= 1
        self.frontier.append(merged)
        self.size += 1

    def root(self) -> bytes:
        """The hash of the whole tree, 32 bytes."""
        if not self.frontier:
            return sha256().digest()
        found = self.frontier[-1]
        for each in reversed(self.frontier[:-1]):
            found = _node(each, found)
        return found

    def copy(self) -> Self:
        """The same tree, free to grow on its own."""
        return type(self)(self.size, self.frontier)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of a leaf (RFC 6962, 2.1.1): what `check_inclusion` needs besides the leaf and the root.

    Args:
        leaves: leaf hashes of the whole tree. index: which leaf, from 0.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"a tree of {len(leaves)} leaves has no leaf {index}")
    path, start, stop = [], 0, len(leaves)
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(_root(leaves[middle:stop]))
            stop = middle
        else:
            path.append(_root(leaves[start:middle]))
            start = middle
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the leaf of that hash stands at `index` in the tree of that size and root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    found, first, last = leaf, index, size - 1
    for each in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = _node(each, found)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            found = _node(found, each)
        first, last = first >> 1, last >> 1
    return last == 0 and found == root


def consistency_proof(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Proof that the tree of the first `old` leaves is a beginning of the whole one (RFC 6962, 2.1.2).

    Raises:
        ValueError: `old` is not between 1 and the number of leaves.
    """
    if not 0 < old <= len(leaves):
        raise ValueError(f"a tree of {len(leaves)} leaves had no earlier size {old}")
    path, start, stop, whole = [], 0, len(leaves), True
    while old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(_root(leaves[middle:stop]))
            stop = middle
        else:
            path.append(_root(leaves[start:middle]))
            start, whole = middle, False
    if not whole:
        path.append(_root(leaves[start:stop]))
    return path[::-1]


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of size and root `new` goes on from that of `old`, nothing rewritten (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    if not path:
        return False
    before = after = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            before, after = _node(each, before), _node(each, after)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            after = _node(after, each)
        first, last = first >> 1, last >> 1
    return last == 0 and (before, after) == (old_root, new_root)


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _root(leaves: Sequence[bytes]) -> bytes:
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()
