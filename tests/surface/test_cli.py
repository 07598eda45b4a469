"""`soupmix ask`, over the manifest of the shipped adapters with a map beside it."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from soupmix.cli import cli
from soupmix.cli.serve import _surface
from soupmix.errors import EvaluationError
from soupmix.store import Store, read_manifest, shipped_root
from soupmix.surface import SURFACE, Surface, read_surface, write_surface
from soupmix.weights import Weights
from tests.support.planted_soups import document, document_over

NAMES = {"easy": "elementary", "hard": "expert", "short": "concise", "long": "informative", "warm": "friendly"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped manifest, and a map that is fitted on planted soups of its adapters; no files of adapters."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(shipped_root() / "manifest.json", folder)
    write_surface(folder, document_over(list(read_manifest(folder)), NAMES))
    return folder


def _half_of_expert(store: Path) -> dict[str, str]:
    return Surface.beside(store, read_manifest(store)).calibrated(Weights("expert=0.5")).decimals()


@pytest.fixture
def shipped(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if this store were the one that comes with soupmix."""
    for module in ("soupmix.store.manifest", "soupmix.store.store"):
        monkeypatch.setattr(f"{module}.shipped_root", lambda: store)
    return store


def _ask(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ask", *arguments, "--store", str(store)])


def test_a_grade_and_a_length_become_weights(store: Path) -> None:
    done = _ask(store, "grade=7", "words=60")
    assert done.exit_code == 0, done.output
    first, _, head, *rows = done.output.splitlines()
    weights = Weights(first)
    assert set(weights) == {"concise", "elementary"}
    assert head.split()[:2] == ["asked", "expected"]
    assert [row.split()[0] for row in rows] == ["grade", "words"]
    found = json.loads(_ask(store, "grade=7", "words=60", "--json").output)
    assert found["weights"] == weights.decimals()
    assert found["targets"]["grade"]["expected"]["value"] == pytest.approx(7, abs=0.5)
    assert found["targets"]["words"]["reached"] is True
    assert found["policy"]["open"] is True
    document = read_surface(store)
    assert document is not None
    assert found["surface"] == document.digest


def test_a_shipped_map_is_found_with_no_further_word(store: Path, shipped: Path) -> None:
    """By `soupmix ask`, by a share as a weight, and by a server."""
    words = ["grade=7", "words=60", "--json"]
    done = CliRunner().invoke(cli, ["ask", *words])
    assert done.exit_code == 0, done.output
    assert done.stdout == _ask(store, *words).stdout
    done = CliRunner().invoke(cli, ["clamp", "-w", "expert=50%", "--json"])
    assert json.loads(done.stdout)["requested"] == _half_of_expert(store)
    found = _surface(Store.shipped())
    assert found is not None
    assert found.document == read_surface(store)


def test_a_server_goes_on_without_a_map_of_its_adapters(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(shipped_root() / "manifest.json", tmp_path)
    assert _surface(Store(tmp_path)) is None
    assert capsys.readouterr().err == ""
    write_surface(tmp_path, document())
    assert _surface(Store(tmp_path)) is None
    assert "nobody can ask for a measure" in capsys.readouterr().err
    (tmp_path / SURFACE).write_text("{}")
    with pytest.raises(EvaluationError, match="is not a surface"):
        _surface(Store(tmp_path))


def test_numbers_have_the_decimals_that_their_size_calls_for() -> None:
    """VADER and the classifier go from -1 or 0 to 1: with one decimal, half of what adapters do would be unseen."""
    from soupmix.cli.ask import _alike

    assert _alike([0.314, -0.05, 0.97]) == ["0.31", "-0.05", "0.97"]
    assert _alike([7.31, 1.24, 12.9]) == ["7.3", "1.2", "12.9"]
    assert _alike([60.44, 12.3, 210.6]) == ["60", "12", "211"]


def test_what_cannot_be_reached_is_on_the_screen(store: Path, tmp_path: Path) -> None:
    policy = tmp_path / "house.yaml"
    policy.write_text(
        "tier: organisation\nissuer: House\nversion: 1\nrules:\n  - {rule: bounds, adapter: concise, at_most: 0.2}\n"
    )
    done = _ask(store, "words=10", "--policy", str(policy))
    assert done.exit_code == 0
    assert done.output.splitlines()[-1].startswith("words = 10 cannot be reached: inside this policy it goes from ")
    assert "concise=0.2" in done.output


def test_half_of_an_effect_is_a_target(store: Path) -> None:
    surface = Surface.beside(store, read_manifest(store))
    measure, value = surface.part_of_effect("concise", 0.5)
    assert measure == "words"
    base, full = (surface.expect(Weights(w))["words"].value for w in ({}, {"concise": 1}))
    assert value == pytest.approx((base * full) ** 0.5, rel=1e-6)
    found = json.loads(_ask(store, "concise=50%", "warmth=3", "--json").output)
    assert found["targets"]["words"]["asked"] == pytest.approx(value, rel=1e-4)
    assert surface.calibrated(Weights("concise=0.5"))["concise"] == pytest.approx(500_000, abs=30_000)


def test_half_of_an_effect_is_a_weight(store: Path, tmp_path: Path) -> None:
    """It is calibrated by the map, then clamped as any weight is."""
    wanted = _half_of_expert(store)["expert"]
    for words in (["clamp", "-w", "expert=50%, friendly=0.3"], ["merge", "--dry-run", "-w", "expert=50%,friendly=0.3"]):
        done = CliRunner().invoke(cli, [*words, "--store", str(store), "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["requested"] == {"expert": wanted, "friendly": "0.3"}
        assert f"50% of the effect of expert alone is its weight {wanted}, by the map" in done.stderr
    policy = tmp_path / "house.yaml"
    policy.write_text(
        "tier: organisation\nissuer: House\nversion: 1\nrules:\n  - {rule: bounds, adapter: expert, at_most: 0.2}\n"
    )
    done = CliRunner().invoke(
        cli, ["clamp", "-w", "expert=50%", "--store", str(store), "--json", "--policy", str(policy)]
    )
    assert json.loads(done.stdout)["granted"] == {"expert": "0.2"}


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ("expert=150%", "a share is from 0 to 1"),
        ("expert=-1%", "a share is from 0 to 1"),
        ("expert=50%,expert=0.5", "'expert' is given twice"),
        ("expert=50%%", "'50%' is not a plain decimal number"),
        ("expert=%", "'' is not a plain decimal number"),
        ("expert50%", "is not a weight"),
        ("expert=5=50%", "is not a plain decimal number"),
        ("unfriendly=50%", "says nothing of 'unfriendly'"),
        ("nobody=50%", "says nothing of 'nobody'"),
    ],
)
def test_what_is_no_share_is_one_sentence(store: Path, weight: str, said: str) -> None:
    from soupmix.errors import SoupmixError

    done = CliRunner().invoke(cli, ["clamp", "-w", weight, "--store", str(store)])
    assert isinstance(done.exception, SoupmixError), done.output
    assert said in str(done.exception)


def test_a_share_is_of_a_store_that_is_named(store: Path, tmp_path: Path) -> None:
    """A recipe may have another store, whose map is not the one that is read."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("weights: {expert: 0.5}\n")
    done = CliRunner().invoke(cli, ["merge", "--dry-run", str(recipe), "-w", "expert=50%"])
    assert done.exit_code != 0
    done = CliRunner().invoke(cli, ["merge", "--dry-run", str(recipe), "-w", "expert=50%", "--store", str(store)])
    assert done.exit_code == 0, done.output


def test_weights_beside_are_kept(store: Path) -> None:
    found = json.loads(_ask(store, "grade=7", "-w", "friendly=0.4", "--json").output)
    assert found["weights"]["friendly"] == "0.4"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tone=7"], 2, "the surface has no measure 'tone'; it has grade, warmth, words"),
        (["grade"], 2, "'grade' is no target; write MEASURE=NUMBER"),
        (["grade=seven"], 2, "is no target"),
        (["grade=nan"], 2, "is no target"),
        (["grade=1e3"], 2, "is no target"),
        (["grade=7", "grade=8"], 2, "'grade' is asked for twice"),
        (["elementary=50%", "grade=8"], 2, "'grade' is asked for twice"),
        (["elementary=150%"], 2, "a share is from 0 to 1"),
        (["unfriendly=50%"], 1, "says nothing of 'unfriendly'"),
        (["words=0"], 2, "give a positive number"),
        (["grade=7", "-w", "elementary=1"], 2, "say one"),
        (["grade=7", "-w", "nobody=1"], 2, "nobody"),
    ],
)
def test_what_is_wrong_is_one_sentence(store: Path, arguments: list[str], code: int, said: str) -> None:
    from soupmix.errors import SoupmixError

    done = _ask(store, *arguments)
    assert isinstance(done.exception, SoupmixError), done.output
    assert done.exception.exit_code == code
    assert said in str(done.exception)


def test_a_store_without_a_map_says_how_to_get_one(tmp_path: Path) -> None:
    shutil.copy(shipped_root() / "manifest.json", tmp_path)
    done = _ask(tmp_path, "grade=7")
    assert isinstance(done.exception, EvaluationError)
    assert f"holds no {SURFACE}; `soupmix evaluate OUT --surface` makes one" in str(done.exception)
    done = CliRunner().invoke(cli, ["clamp", "-w", "expert=50%", "--store", str(tmp_path)])
    assert isinstance(done.exception, EvaluationError)
    assert f"holds no {SURFACE}; `soupmix evaluate OUT --surface` makes one" in str(done.exception)
