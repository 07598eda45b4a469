"""The seal: no public name gives a grant but `Policy.clamp`, of weights that the policy whose digest it bears lets through.

Every way is tried for one goal: `unfriendly=1` under the digest of a policy that forbids it, past `check_grant`, which is what
merge, engine and batch ask. Private names are no wall, as docs/threats.md says.
"""

import contextlib
import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import soupmix
from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Grant, Policy
from soupmix.policy.grant import ClampResult, check_grant
from soupmix.policy.recorded import RecordedGrant, read_record
from soupmix.projection import Projected
from soupmix.weights import Weights
from tests.support.policies import build, document
from tests.support.shelf import SHELF

ASKED = Weights("unfriendly=1")
REFUSED = (AttributeError, PolicyError, PolicyRefusal, TypeError)


def strict() -> Policy:
    return build(document({"rule": "bounds", "adapter": "unfriendly", "at_most": "0", "id": "never"}))


def lax() -> Policy:
    return build(document())


def greedy() -> dict[str, Any]:
    """All that the grant wanted would say."""
    given = lax().clamp(ASKED)
    said = {each.name: getattr(given, each.name) for each in dataclasses.fields(RecordedGrant)}
    return said | {"policy_digest": strict().digest}


def blank(**said: object) -> Grant:
    """A grant that no constructor made."""
    made = object.__new__(Grant)
    RecordedGrant.__init__(made, **said)  # type: ignore[arg-type]
    return made


def altered(grant: Grant, **said: object) -> Grant:
    for name, value in said.items():
        object.__setattr__(grant, name, value)
    return grant


def edited_record() -> object:
    record = strict().clamp(ASKED).to_dict()
    weights = {"unfriendly": "1"}
    changed = {"granted": weights, "digests": lax().clamp(ASKED).digests, "clamped": False, "binding": []}
    return read_record(record | changed | {"distance": "0"})


def class_of_a_record() -> object:
    made = RecordedGrant(**greedy())
    object.__setattr__(made, "__class__", Grant)
    return made


def class_of_a_twin() -> object:
    class Twin(RecordedGrant):
        __slots__ = ("_tag",)

    made = Twin(**greedy())
    object.__setattr__(made, "_tag", lax().clamp(ASKED)._tag)
    object.__setattr__(made, "__class__", Grant)
    return made


def subclass() -> object:
    class Lenient(Grant):  # type: ignore[misc]
        def __init__(self, **said: Any) -> None:
            RecordedGrant.__init__(self, **said)

    return Lenient(**greedy())


def clamp_result() -> object:
    """A clamp's result, made by hand, with what a grant says besides."""
    given, index = lax().clamp(ASKED), lax().names.index("unfriendly")
    weights = tuple(10**6 if number == index else 0 for number in range(len(lax().names)))
    result = ClampResult.of(Projected(weights, Fraction(0), ()), SHELF)  # type: ignore[arg-type]
    assert dict(result.granted) == dict(given.granted)
    return Grant(**greedy(), seal=result._seal)


def policy_subclass() -> object:
    class Lenient(Policy):  # type: ignore[misc]
        digest = property(lambda self: strict().digest)  # type: ignore[assignment]

        def obligations(self, attributes: object) -> tuple[str, ...]:
            return ()

    return Lenient.assemble((), SHELF).clamp(ASKED)


def policy_by_name(name: str, value: object) -> object:
    made = lax()
    object.__setattr__(made, name, value)
    return made.clamp(ASKED)


def policy_from_state() -> object:
    made = object.__new__(Policy)
    made.__setstate__([getattr(lax(), each.name) for each in dataclasses.fields(Policy)])
    return made.clamp(ASKED)


def policy_begun_anew() -> object:
    """A strict policy after a constructor that failed."""
    made, other = strict(), lax()
    said = [getattr(other, each.name) for each in dataclasses.fields(Policy)]
    said[[each.name for each in dataclasses.fields(Policy)].index("_digest")] = made.digest
    for few in range(len(said), 0, -1):
        with contextlib.suppress(TypeError):
            made.__init__(*said[:few])  # type: ignore[misc]
    return asked_of(made)


def policy_with_other_bounds() -> object:
    """A strict policy after changes of all that its rules show, asked of a kind of request that nobody asked before."""
    never = {"rule": "bounds", "adapter": "unfriendly", "at_most": "0", "id": "never"}
    made = build(document(never, {**never, "id": "minors", "scope": {"audience": ["minor"]}}))
    for constraint in [each for rule in made.rules for each in getattr(rule, "constraints", ())]:
        object.__setattr__(constraint, "bound", 5_000_000)
    return asked_of(made, audience="adult")


def policy_that_refuses_no_more() -> object:
    rule = {"rule": "bounds", "adapter": "unfriendly", "at_most": "0", "id": "never", "mode": "refuse"}
    made = build(document(rule))
    for each in made.rules:
        object.__setattr__(each.ref, "refuses", False)
    made.clamp(ASKED)
    raise AssertionError("a rule that refuses was heeded no more")


def asked_of(made: Policy, **attributes: str) -> Grant:
    """What a policy grants, where that is anything."""
    given = made.clamp(ASKED, **attributes)
    if not given.granted:
        raise PolicyError("nothing was granted", reason="not-granted")
    return given


WAYS: dict[str, Callable[[], object]] = {
    "constructor": lambda: Grant(**greedy()),
    "constructor with a seal": lambda: Grant(**greedy(), seal=lax().clamp(ASKED)._tag),
    "constructor of the base": lambda: blank(**greedy()),
    "constructor of the base, and a tag": lambda: altered(blank(**greedy()), _tag=lax().clamp(ASKED)._tag),
    "nothing but the class": lambda: object.__new__(Grant),
    "dataclasses.replace": lambda: dataclasses.replace(lax().clamp(ASKED), policy_digest=strict().digest),
    "copy.replace": lambda: lax().clamp(ASKED).__replace__(policy_digest=strict().digest),  # type: ignore[attr-defined]
    "object.__setattr__": lambda: altered(strict().clamp(ASKED), granted=ASKED),
    "copy, then changed": lambda: altered(copy.copy(lax().clamp(ASKED)), policy_digest=strict().digest),
    "deepcopy, then changed": lambda: altered(copy.deepcopy(lax().clamp(ASKED)), policy_digest=strict().digest),
    "pickle": lambda: pickle.loads(pickle.dumps(lax().clamp(ASKED))),
    "__reduce__": lambda: lax().clamp(ASKED).__reduce__(),
    "__reduce_ex__": lambda: lax().clamp(ASKED).__reduce_ex__(2),
    "__setstate__": lambda: object.__new__(Grant).__setstate__(list(greedy().values())),
    "subclass": subclass,
    "__class__ of a record": class_of_a_record,
    "__class__ of one of the same slots": class_of_a_twin,
    "an edited record": edited_record,
    "a record, by its class": lambda: RecordedGrant(**greedy()),
    "a pickled record": lambda: pickle.loads(pickle.dumps(RecordedGrant(**greedy()))),
    "the result of a clamp": clamp_result,
    "policy: dataclasses.replace": lambda: dataclasses.replace(lax(), digest=strict().digest).clamp(ASKED),  # type: ignore[call-arg]
    "policy: replace of a field": lambda: dataclasses.replace(lax(), _digest=strict().digest).clamp(ASKED),
    "policy: object.__setattr__": lambda: policy_by_name("digest", strict().digest),
    "policy: copy, then changed": lambda: object.__setattr__(copy.copy(lax()), "digest", strict().digest),
    "policy: subclass": policy_subclass,
    "policy: __setstate__": policy_from_state,
    "policy: a constructor that fails": policy_begun_anew,
    "policy: constraints of its rules": policy_with_other_bounds,
    "policy: a rule's reference": policy_that_refuses_no_more,
    "policy: pickle": lambda: pickle.loads(pickle.dumps(lax())),
    "policy: __reduce_ex__": lambda: lax().__reduce_ex__(2),
}  # fmt: skip


def test_what_is_tried_for_would_pass_if_a_policy_gave_it() -> None:
    given = lax().clamp(ASKED)
    check_grant(given, "nobody")
    assert dict(given.granted) == {"unfriendly": 1_000_000}
    assert not strict().clamp(ASKED).granted
    assert given.policy_digest != strict().digest
    assert copy.copy(given) is copy.deepcopy(given) is given
    policy = lax()
    assert copy.copy(policy) is copy.deepcopy(policy) is policy


@pytest.mark.parametrize("way", WAYS)
def test_no_public_way_gives_a_grant(way: str) -> None:
    with pytest.raises(REFUSED):
        check_grant(WAYS[way](), "nobody")


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(soupmix.__path__, "soupmix."):
        if ".migrations" not in found.name:
            yield importlib.import_module(found.name)


def callables(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions of a module, and public methods of its public classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) not in (module.__name__, "soupmix"):
            continue
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}", value
        elif inspect.isclass(value):
            for method, held in vars(value).items():
                plain = getattr(held, "__func__", held)
                if inspect.isfunction(plain) and not method.startswith("_"):
                    yield f"{plain.__module__}.{plain.__qualname__}", plain


def test_whoever_says_that_it_returns_a_grant_asks_a_policy() -> None:
    """The annotations of all public functions and methods of the package, which mypy holds to be true."""
    giving = {
        name: each
        for module in modules()
        for name, each in callables(module)
        if re.search(r"\bGrant\b", str(each.__annotations__.get("return", "")))
    }
    del giving[f"{Policy.clamp.__module__}.Policy.clamp"]
    asks = r"\.clamp\(|policy\._grant\("
    assert [name for name, each in giving.items() if not re.search(asks, inspect.getsource(each))] == []
    assert giving


@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("_by_maker", ["merge/soup.py", "policy/policy.py", "sealing.py"]),
        ("_granted", ["policy/grant.py", "policy/policy.py"]),
        ("read_record", ["merge/lone.py", "merge/verification.py", "policy/recorded.py"]),
    ],
)
def test_what_makes_grants_and_reads_records_has_one_user(name: str, users: list[str]) -> None:
    root = Path(soupmix.__path__[0])
    found = [path for path in sorted(root.rglob("*.py")) if re.search(rf"\b{name}\b", path.read_text("utf-8"))]
    assert [path.relative_to(root).as_posix() for path in found] == users
