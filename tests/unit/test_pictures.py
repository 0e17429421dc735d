"""The pictures of the documentation are up to date and readable, and name what the code has."""

import ast
import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from activities.sending.in_flight import RENEW_SECONDS
from bellwire.contract import CHUNK_SIZE, PAGE_SIZE, SEARCH_ATTRIBUTES
from bellwire.deliveries import LEASE, DeliveryState
from docs.pictures import draw

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
#: Read and not imported: what it imports is not installed by default.
SCREENSHOTS = (FOLDER / "screenshots.py").read_text()
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
    assert f"a lease of {LEASE.total_seconds():g} s," in draw.pictures()["crash.svg"]
    assert f"renewed every {RENEW_SECONDS:g} s." in draw.pictures()["crash.svg"]


def constant_of_screenshots(name: str) -> object:
    """The value of one of the script's constants."""
    for node in ast.parse(SCREENSHOTS).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"screenshots.py has no {name}")


@pytest.mark.parametrize("name", re.findall(r"Shot\(\s*\"([\w-]+)\"", SCREENSHOTS))
def test_a_screenshot_is_a_png_of_a_sensible_size(name: str) -> None:
    png = (FOLDER / f"{name}.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width == 1400
    assert 300 < height < 1400
    assert 10_000 < len(png) < 250_000


def test_every_picture_is_made_by_a_script() -> None:
    taken = {f"{name}.png" for name in re.findall(r"Shot\(\s*\"([\w-]+)\"", SCREENSHOTS)}
    assert {file.name for file in FOLDER.iterdir() if file.suffix in {".png", ".svg"}} == taken | draw.pictures().keys()
    assert taken


def test_the_screenshots_search_and_show_registered_attributes() -> None:
    used = re.findall(r"Bellwire\w+", f"{constant_of_screenshots('QUERY')} {constant_of_screenshots('COLUMNS')}")
    assert "BellwireUnsettled" in used
    assert set(used) <= {key.name for key in SEARCH_ATTRIBUTES}
