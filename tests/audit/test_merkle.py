"""The tree against the published vectors of Certificate Transparency and against RFC 6962's own recursive definition."""

import random
from hashlib import sha256

import pytest

from soupmix.audit.merkle import (
    Tree,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
)

# certificate-transparency's merkletree tests: eight inputs, and the root of the first 1 to 8 of them
INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1: PATH(m, D[n])."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], known: bool) -> list[bytes]:
    """RFC 6962, 2.1.2: SUBPROOF(m, D[n], b)."""
    if m == len(leaves):
        return [] if known else [mth(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*subproof(m, leaves[:k], known), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def grown(hashes: list[bytes]) -> Tree:
    tree = Tree()
    for each in hashes:
        tree.add(each)
    return tree


def test_published_roots() -> None:
    tree = Tree()
    assert tree.root() == sha256(b"").digest()
    for text, root in zip(INPUTS, ROOTS, strict=True):
        tree.add(leaf_hash(bytes.fromhex(text)))
        assert tree.root().hex() == root


def test_the_growing_tree_is_the_recursive_one_and_can_be_resumed_anywhere() -> None:
    every, tree = leaves(301), Tree()
    for size in range(301):
        assert tree.root() == mth(every[:size])
        resumed = Tree(size, tree.frontier)
        tree.add(every[size])
        resumed.add(every[size])
        assert resumed.root() == tree.root()


def test_a_copy_grows_alone() -> None:
    tree = grown(leaves(5))
    before = tree.root()
    tree.copy().add(leaf_hash(b"more"))
    assert (tree.root(), tree.size) == (before, 5)


@pytest.mark.parametrize("bad", [(1, []), (3, [bytes(32)]), (2, [bytes(31)]), (-1, [bytes(32)])])
def test_a_frontier_must_fit_its_size(bad: tuple[int, list[bytes]]) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Tree(*bad)


@pytest.mark.parametrize("size", [*range(1, 35), 64, 65, 127, 300])
def test_proofs_are_those_of_the_rfc_and_hold(size: int) -> None:
    every = leaves(size)
    root = mth(every)
    for index in range(0, size, 1 + size // 40):
        proof = inclusion_proof(every, index)
        assert proof == path(index, every)
        assert check_inclusion(every[index], index, size, root, proof)
    for old in range(1, size + 1, 1 + size // 40):
        proof = consistency_proof(every, old)
        assert proof == subproof(old, every, True)
        assert check_consistency(old, mth(every[:old]), size, root, proof)


def test_no_forged_proof_holds() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        size = rng.randrange(2, 70)
        every = leaves(size)
        root, index, old = mth(every), rng.randrange(size), rng.randrange(1, size)
        inside, onward = inclusion_proof(every, index), consistency_proof(every, old)
        match rng.randrange(5):
            case 0:
                inside, onward = inside[:-1], onward[:-1]
            case 1:
                inside, onward = [*inside, bytes(32)], [*onward, bytes(32)]
            case 2:
                inside, onward = (flip(rng, each) for each in (inside, onward))
            case 3:  # another leaf, another past
                every[index], every[old - 1] = leaf_hash(b"forged"), leaf_hash(b"forged too")
            case 4:  # the right leaf in another place; a past of another length
                other = rng.choice([each for each in range(size) if each != index])
                assert not check_inclusion(every[index], other, size, root, inside)
                continue
        assert not check_inclusion(every[index], index, size, root, inside)
        assert not check_consistency(old, mth(every[:old]), size, root, onward)


def flip(rng: random.Random, proof: list[bytes]) -> list[bytes]:
    place = rng.randrange(len(proof))
    changed = bytearray(proof[place])
    changed[rng.randrange(32)] ^= 1 << rng.randrange(8)
    return [*proof[:place], bytes(changed), *proof[place + 1 :]]


def test_what_is_not_in_the_tree_has_no_proof() -> None:
    for call in (lambda: inclusion_proof(leaves(3), 3), lambda: inclusion_proof([], 0)):
        with pytest.raises(ValueError, match="no leaf"):
            call()
    for old in (0, 4):
        with pytest.raises(ValueError, match="no earlier size"):
            consistency_proof(leaves(3), old)
    assert not check_consistency(0, mth([]), 3, mth(leaves(3)), [])
    assert not check_inclusion(leaves(1)[0], 1, 1, leaves(1)[0], [])
