"""The pages in Chinese: they have the commands, code, headings and links of the English ones."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PAIRS = {"README.md": "README.zh-CN.md", "docs/tutorial.md": "docs/tutorial.zh.md"}
HAN = re.compile(r"[\u4e00-\u9fff]")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block, without comments and the alignment before them: these are translated."""
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", (CHECKOUT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [(language, re.sub(r"[ \t]+# .*$", "", text, flags=re.MULTILINE)) for language, text in found]


def terminals(page: str) -> list[str]:
    """The numbers of the terminals in the titles of the blocks, in order."""
    titles = re.findall(r'^```\w+ title="([^"]*)"$', (CHECKOUT / page).read_text(), flags=re.MULTILINE)
    return ["".join(re.findall(r"\d", title)) for title in titles]


def headings(page: str) -> list[int]:
    """The level of each heading outside blocks, in order."""
    text = re.sub(r"^```.*?^```$", "", (CHECKOUT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [len(marks) for marks in re.findall(r"^(#+) ", text, flags=re.MULTILINE)]


@pytest.mark.parametrize(("english", "chinese"), PAIRS.items())
def test_a_chinese_page_has_the_commands_of_the_english_one(english: str, chinese: str) -> None:
    assert blocks(english)
    assert blocks(chinese) == blocks(english)
    assert terminals(chinese) == terminals(english)
    assert headings(chinese) == headings(english)


@pytest.mark.parametrize(("english", "chinese"), PAIRS.items())
def test_both_pages_link_to_each_other(english: str, chinese: str) -> None:
    assert f"]({Path(chinese).name})" in (CHECKOUT / english).read_text()
    assert f"]({Path(english).name})" in (CHECKOUT / chinese).read_text()


def test_both_tables_of_promises_have_the_same_rows() -> None:
    rows = [len(re.findall(r"^\| ", (CHECKOUT / page).read_text(), flags=re.MULTILINE)) for page in PAIRS]
    chinese = [len(re.findall(r"^\| ", (CHECKOUT / page).read_text(), flags=re.MULTILINE)) for page in PAIRS.values()]
    assert chinese == rows


@pytest.mark.parametrize("page", PAIRS.values())
def test_every_paragraph_of_a_chinese_page_is_in_chinese(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (CHECKOUT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    paragraphs = [each for each in text.split("\n\n") if each.strip() and each.strip() != "# Bellwire"]
    assert [each for each in paragraphs if not HAN.search(each)] == []
