import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupmix.errors import WeightError
from soupmix.weights import MILLION, Weights, check_name, decimal_text, to_micro

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)
MICROS = st.integers(-1000 * MILLION, 1000 * MILLION)


def half_even(number: Fraction) -> int:
    """Millionths by the definition: the nearest integer, the even one of two."""
    scaled = number * MILLION
    low = scaled.numerator // scaled.denominator
    rest = scaled - low
    if rest == Fraction(1, 2):
        return low + low % 2
    return low + (rest > Fraction(1, 2))


@given(st.dictionaries(NAMES, MICROS))
def test_text_and_back(micro: dict[str, int]) -> None:
    weights = Weights.from_micro(micro)
    assert Weights(weights.decimals()) == weights
    assert list(weights) == sorted(micro)
    assert dict(weights) == micro
    if micro:
        assert Weights(str(weights)) == weights
        assert Weights(str(weights).split(",")) == weights


@given(MICROS)
def test_decimal_text_is_exact_and_shortest(micro: int) -> None:
    text = decimal_text(micro)
    assert Fraction(text) * MILLION == micro
    assert "." not in text or not text.endswith("0")
    assert text != "-0"


@given(st.integers(0, 999), st.from_regex(r"[0-9]{1,20}", fullmatch=True), st.booleans())
def test_text_rounds_half_even(whole: int, fraction: str, negative: bool) -> None:
    text = f"{'-' if negative else ''}{whole}.{fraction}"
    assert to_micro(text, "x") == half_even(Fraction(text))
    assert to_micro(Decimal(text), "x") == half_even(Fraction(text))
    assert Weights({"x": text}) == Weights({"x": Decimal(text)}) == Weights(f"x={text}")


@given(st.floats(allow_nan=True, allow_infinity=True) | st.text("-0123456789.e", max_size=9), st.booleans())
def test_weights_are_read_as_numbers_are(value: float | str, rounded: bool) -> None:
    value = round(value, 3) if rounded and isinstance(value, float) else value

    def said(read: Callable[[], int]) -> object:
        try:
            return read()
        except WeightError as error:
            return str(error), error.reason

    assert said(lambda: Weights({"x": value})["x"]) == said(lambda: to_micro(value, "weight 'x'"))


@given(st.floats(-1000, 1000, allow_nan=False))
def test_a_float_counts_as_its_shortest_decimal(number: float) -> None:
    assert to_micro(number, "x") == half_even(Fraction(repr(number)))


@pytest.mark.parametrize(
    ("number", "micro"),
    [
        (0.3, 300_000),
        (0.1 + 0.2, 300_000),
        (1, MILLION),
        ("0.0000005", 0),
        ("0.0000015", 2),
        (5e-7, 0),
        (1.5e-6, 2),
        (2.5e-6, 2),
        ("-0", 0),
        (-0.0, 0),
        ("-0.0000001", 0),
        (5e-324, 0),
        (Decimal("1e-999999"), 0),
        ("00.50", 500_000),
        (".5", 500_000),
        ("-.25", -250_000),
        ("1000", 1000 * MILLION),
    ],
)
def test_numbers(number: float | str | Decimal, micro: int) -> None:
    assert to_micro(number, "x") == micro


@pytest.mark.parametrize(
    "number",
    [
        "nan", "NaN", "inf", "-Infinity", "1e999", "1e3", "1E0", "1_0", "0x1", "１", "٣", "0.٣", "", " ", " 1", "1 ",
        "1\n", "+1", ".", "-.", ".5.", "5.", "--1", "1.2.3", "true", "0.3f", "1,5", "−1", "0." + "1" * 40,
        float("nan"), float("inf"), -float("inf"), Decimal("nan"), Decimal("sNaN"), Decimal("inf"),
        True, False, None, [], b"1", 1j, Fraction(1, 2),
    ],
)  # fmt: skip
def test_not_a_number(number: object) -> None:
    with pytest.raises(WeightError, match=r"weight 'friendly' = .* is not a plain decimal number") as caught:
        Weights({"friendly": number})  # type: ignore[dict-item]
    assert caught.value.reason == "bad-number"
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "number", [1000.5, "1000.000001", -1001, 10**400, -(10**400), 1e308, Decimal("1e999999"), "9" * 32]
)
def test_absurd_magnitudes(number: object) -> None:
    with pytest.raises(WeightError, match="beyond the 1000") as caught:
        Weights({"a": number})  # type: ignore[dict-item]
    assert caught.value.reason == "too-large"
    assert len(str(caught.value)) < 200


def test_exact_refuses_what_would_be_rounded() -> None:
    assert to_micro("0.123456000", "x", exact=True) == 123_456
    with pytest.raises(WeightError, match="finer than a millionth"):
        to_micro("0.1234567", "x", exact=True)


@pytest.mark.parametrize("name", ["", "A", "é", "a b", "-a", "_a", "a.b", "../a", "a\n", "a" * 64, "а", "１", None, 3])
def test_bad_names(name: object) -> None:
    with pytest.raises(WeightError, match="is not a name") as caught:
        Weights({name: 1})  # type: ignore[dict-item]
    assert caught.value.reason == "bad-name"
    with pytest.raises(WeightError):
        check_name(name)  # type: ignore[arg-type]


def test_longest_name() -> None:
    assert check_name("a" * 63) == "a" * 63


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [
        ("a=1,a=0.5", "duplicate-name", "given twice"),
        (["a=1", "a=1"], "duplicate-name", "given twice"),
        ("", "bad-weights", "name=number"),
        ("a", "bad-weights", "name=number"),
        ("a=1,", "bad-weights", "name=number"),
        ("=1", "bad-name", "is not a name"),
        ("a =1", "bad-name", "is not a name"),
        ("a=", "bad-number", "not a plain decimal"),
        ("a=50%", "bad-number", "where the store has a surface"),
        ("a=1=2", "bad-number", "not a plain decimal"),
        (3, "bad-weights", "mapping"),
        ([1], "bad-weights", "mapping"),
        (b"a=1", "bad-weights", "mapping"),
        (None, "bad-weights", "mapping"),
    ],
)
def test_bad_sources(source: object, reason: str, words: str) -> None:
    with pytest.raises(WeightError, match=words) as caught:
        Weights(source)  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_spaces_after_commas_are_fine() -> None:
    assert Weights("a=1, b=0.5") == Weights({"b": 0.5, "a": 1})


@pytest.mark.parametrize("micro", [0.5, True, "1", 1000 * MILLION + 1, None])
def test_from_micro_takes_integers_only(micro: object) -> None:
    with pytest.raises(WeightError, match="integer number of millionths"):
        Weights.from_micro({"a": micro})  # type: ignore[dict-item]


def test_a_value() -> None:
    weights = Weights("friendly=0.3,elementary=0.9,zero=0")
    assert str(weights) == "elementary=0.9,friendly=0.3,zero=0"
    assert weights.floats() == {"elementary": 0.9, "friendly": 0.3, "zero": 0.0}
    assert str(weights.nonzero()) == "elementary=0.9,friendly=0.3"
    assert weights != weights.nonzero()
    assert hash(weights) == hash(Weights({"zero": 0, "friendly": "0.3", "elementary": 0.9}))
    assert pickle.loads(pickle.dumps(weights)) == weights
    with pytest.raises(AttributeError, match="immutable"):
        weights.friendly = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="immutable"):
        weights._micro = {}
    with pytest.raises(TypeError):
        weights["friendly"] = 1  # type: ignore[index]


def test_no_weights() -> None:
    assert Weights({}) == Weights([]) == Weights()
    assert str(Weights()) == ""


def test_an_integer_too_long_for_python_to_print() -> None:
    with pytest.raises(WeightError, match="a huge integer is beyond"):
        Weights({"a": 10**5000})


@pytest.mark.parametrize("made", [Weights("a=0.5"), Weights.from_micro({"a": 1}), Weights("a=0.5").copy()])
def test_a_constructor_does_not_change_weights(made: Weights) -> None:
    before = dict(made)
    with pytest.raises(TypeError, match="immutable"):
        made.__init__("b=0.5")  # type: ignore[misc]
    assert dict(made) == before
