"""The diagrams of the documentation are up to date and readable, and name what the code has."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bellwire.contract import CHUNK_SIZE, PAGE_SIZE
from bellwire.deliveries import LEASE, DeliveryState
from docs.pictures import draw

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", draw.pictures())
def test_a_diagram_is_what_the_script_draws(name: str) -> None:
    assert (FOLDER / name).read_text() == draw.pictures()[name], "run python -m docs.pictures.draw"


@pytest.mark.parametrize("name", draw.pictures())
def test_a_diagram_has_a_title_a_description_and_real_text(name: str) -> None:
    root = ElementTree.fromstring((FOLDER / name).read_text())
    described = {element.get("id") for element in root if element.tag in {f"{SVG}title", f"{SVG}desc"} and element.text}
    assert set((root.get("aria-labelledby") or "").split()) == described
    assert len(described) == 2
    assert len(list(root.iter(f"{SVG}text"))) > 10
    assert not re.findall(r"(?:href|src)=", (FOLDER / name).read_text())


def test_the_states_in_the_diagram_are_the_states_of_a_delivery() -> None:
    root = ElementTree.fromstring((FOLDER / "delivery-states.svg").read_text())
    drawn = [element.text for element in root.iter(f"{SVG}text") if "state" in (element.get("class") or "").split()]
    assert sorted(map(str, drawn)) == sorted(DeliveryState)


def test_the_numbers_in_the_diagrams_are_those_in_force() -> None:
    assert f"chunks of {CHUNK_SIZE}" in draw.pictures()["flow.svg"]
    assert f"over {PAGE_SIZE:,} match" in draw.pictures()["run-life.svg"]
    assert (
        f"of {LEASE.total_seconds():g} s, renewed every {LEASE.total_seconds() / 3:g} s" in draw.pictures()["crash.svg"]
    )
