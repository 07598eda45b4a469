"""`lora`, as clients of other servers say weights: [{"id": NAME, "scale": WEIGHT}, ...] is `soup.weights`."""

from typing import Any

__all__ = ["read_loras"]

_MOST = 1000
_FORM = 'lora is a list of {"id": NAME, "scale": WEIGHT}, one for each adapter, by its name'


def read_loras(value: Any) -> Any:
    """A request as it was sent, with `soup.weights` instead of `lora`; whether the weights are any is for others to say.

    Raises:
        ValueError: `lora` is something else, names an adapter twice, or the request says weights in both ways.
    """
    if not isinstance(value, dict) or "lora" not in value:
        return value
    rest = {name: said for name, said in value.items() if name != "lora"}
    weights = _weights([] if value["lora"] is None else value["lora"])
    if not weights:
        return rest
    soup = rest.get("soup") or {}
    if not isinstance(soup, dict) or soup.get("weights"):
        raise ValueError("lora and soup.weights say the same thing: give one of them")
    return {**rest, "soup": {**soup, "weights": weights}}


def _weights(given: Any) -> dict[str, Any]:
    if not isinstance(given, list) or len(given) > _MOST:
        raise ValueError(_FORM)
    found: dict[str, Any] = {}
    for each in given:
        if not isinstance(each, dict) or each.keys() != {"id", "scale"} or not isinstance(each["id"], str):
            raise ValueError(_FORM)
        if each["id"] in found:
            raise ValueError(f"lora names {each['id']!r:.80} twice: give each adapter once")
        found[each["id"]] = each["scale"]
    return found
