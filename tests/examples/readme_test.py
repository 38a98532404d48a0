"""The README's Python runs, block after block, and what it names exists."""

from __future__ import annotations

import pathlib
import re

import pytest

import wrpn_tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language; output has none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Some of them save models.
    names: dict[str, object] = {}
    for number, block in enumerate(_blocks("python"), start=1):
        exec(compile(block, f"README.md, Python block {number}", "exec"), names)
    assert (tmp_path / "student.keras").is_file()


def test_every_public_name_is_in_the_table():
    table = README.partition("\n## Names\n")[2].partition("\n## ")[0]
    named = {
        name for cells in re.findall(r"^\| (`.*?) \|", table, re.M) for name in cells.split("`")
    }
    assert set(wrpn_tf.__all__) <= named


def test_every_script_is_named():
    files = (ROOT / "examples").glob("*.py")
    scripts = {path.name for path in files if "app.run(main)" in path.read_text()}
    assert scripts == set(re.findall(r"`examples/(\w+\.py)`", README))


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(
        r"\bmake ([a-z]+)\b", "\n".join(_blocks("bash")).replace("install make", "")
    )
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "examples/results/README.md"])
def test_links_lead_somewhere(name):
    page = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    for file, heading in links:
        target = page.parent / file if file else page
        assert target.exists(), file
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if heading else []
        assert not heading or heading in [h.lower().replace(" ", "-") for h in headings], heading


def test_output_fits_a_terminal():
    blocks = _blocks("")
    assert blocks
    for block in blocks:
        assert max(map(len, block.splitlines())) <= 100
