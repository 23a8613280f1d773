"""The pages people read: made ones are not stale, links lead somewhere, commands and samples are the program's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from citybrain_cli.main import _parser
from edge import config as edge_config
from firmware_sim.scene import load_scene
from protocols.core import tomlfile

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "deploy/*.md", "*/README.md", "*/*/README.md", "*/*/*/README.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") or part == "var" for part in path.relative_to(ROOT).parts)
)


def test_made_pages_are_not_stale() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}; run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def _commands(page: Path) -> Iterator[list[str]]:
    """Lines of shell fences that start our program, without their remarks."""
    for fence in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in fence.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "citybrain":
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_on_the_page_are_commands_of_the_program(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in _commands(page):
        if words[:1] == ["sim"]:
            from firmware_sim.run import _parser as sim_parser

            sim_parser().parse_args(words[1:])
            continue
        try:
            _parser().parse_args(words)
        except SystemExit as ended:
            assert ended.code == 0, f"{page.name}: citybrain {' '.join(words)}: {capsys.readouterr().err}"


def test_both_front_pages_say_the_same() -> None:
    """Same chapters, same commands, same code, same pictures but for their language, same links."""
    en, zh = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))

    def commands(text: str) -> list[str]:
        fences = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        return [re.sub(r"\s+#.*", "", line).strip() for fence in fences for line in fence.splitlines() if line.strip()]

    def chapters(text: str) -> list[str]:
        return [line.partition(" ")[0] for line in re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).splitlines()
                if line.startswith("#")]  # fmt: skip

    def links(text: str) -> list[str]:
        return [re.sub(r"-(zh|en)\.png", ".png", target) for target in re.findall(r"\]\(([^)]+)\)", text)
                if not target.startswith("README")]  # fmt: skip

    assert commands(en) == commands(zh)
    assert chapters(en) == chapters(zh)
    assert links(en) == links(zh)
    toml = [re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for text in (en, zh)]
    strip = re.compile(r"\s+#.*")
    assert [strip.sub("", t) for t in toml[0]] == [strip.sub("", t) for t in toml[1]]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_samples_of_the_front_page_are_valid(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    gateway, scene = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    config = tomlfile.decode(gateway, edge_config.EdgeConfig, "gateway.toml")
    assert config.gateway.id == "gw-site-01"
    (tmp_path / "scene.toml").write_text(scene, encoding="utf-8")
    assert len(load_scene(tmp_path / "scene.toml", {}).device) == 1


def test_report_page_has_every_key_of_the_report() -> None:
    source = (ROOT / "citybrain_cli" / "up" / "report.py").read_text(encoding="utf-8")
    built = source.partition("def build(")[2]
    keys = set(re.findall(r'^\s+"(\w+)": ', built, re.MULTILINE))
    keys |= {"lost", "duplicated", "thinned", "uploads_acknowledged", "uploads_lost", "setup", "to_console", "total"}
    keys |= {"p50", "p99", "sensor_to_commit", "sensor_to_alarm"}
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    missing = [key for key in sorted(keys) if not any(form in page for form in (f"`{key}`", f".{key}`", f"`{key}."))]
    assert not missing
