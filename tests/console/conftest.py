"""The console as an operator meets it: its own process, a real database, a real Chromium."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.cloud_api import city
from tests.fixtures.postgres import Postgres, new_database
from tests.fixtures.process import Server

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required", "--force-prefers-reduced-motion",
)  # fmt: skip
#: Where to put pictures of the pages (docs/img in the repository); unset: none are taken.
SHOTS = os.environ.get("CITYBRAIN_SHOTS", "")


@dataclass
class Console:
    url: str
    dsn: str
    log: Path
    first_password: str

    def db(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn, autocommit=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def console(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    dsn = new_database(postgres)
    with psycopg.connect(dsn, autocommit=True) as conn:
        city.fill(conn, datetime.now(UTC))
    folder = tmp_path_factory.mktemp("console")
    port = _free_port()
    config = folder / "core.toml"
    config.write_text(
        f'dsn = {json.dumps(dsn)}\nlisten = "127.0.0.1:{port}"\nstate_dir = {json.dumps(str(folder / "state"))}\n'
        '[identity]\nbroker_url = "mqtts://broker.example:8883"\npublic_url = "https://core.example"\n'
    )
    server = Server([sys.executable, "-u", "-m", "cloud.app", str(config)], folder / "log")
    started = time.monotonic()
    server.spawn()
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            if httpx.get(f"{url}/api/v1/health", timeout=5).json()["ok"]:
                break
        except (httpx.HTTPError, ValueError):
            pass
        assert server.running and time.monotonic() - started < 60, server.log.read_text()
        time.sleep(0.05)
    first = server.log.read_text().partition("password ")[2].partition(" ")[0]
    yield Console(url, dsn, server.log, first)
    server.end()


class Browser:
    """Chromium with the few moves these tests need; every wait is for something on the page."""

    def __init__(self, console: Console, driver: webdriver.Chrome) -> None:
        self.console = console
        self.driver = driver
        self.resize(1366, 768)

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, path: str) -> None:
        self.driver.get(self.console.url + path)

    def until(self, what: Callable[[], Any], why: str, timeout_s: float = 20) -> Any:
        end = time.monotonic() + timeout_s
        while True:
            try:
                found = what()
            except StaleElementReferenceException:
                found = None
            if found:
                return found
            if time.monotonic() > end:
                self.shot("failed", always=True)
                raise AssertionError(
                    f"{why}; the page says: {self.driver.find_element(By.TAG_NAME, 'body').text[:600]}"
                )
            time.sleep(0.05)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def see(self, css: str, text: str = "", timeout_s: float = 20) -> WebElement:
        """The first element shown that fits and holds the text."""

        def find() -> WebElement | None:
            return next((e for e in self.all(css) if e.is_displayed() and text in e.text), None)

        found = self.until(find, f"no {css} with {text!r}", timeout_s)
        assert isinstance(found, WebElement)
        return found

    def gone(self, css: str, text: str = "") -> None:
        self.until(lambda: not any(text in e.text for e in self.all(css)), f"{css} {text!r} is still there")

    def click(self, css: str, text: str = "") -> None:
        def press() -> bool:
            try:
                self.see(css, text).click()
            except (StaleElementReferenceException, WebDriverException):
                return False
            return True

        self.until(press, f"{css} {text!r} cannot be clicked")

    def fill(self, css: str, text: str) -> None:
        field = self.see(css)
        field.clear()
        field.send_keys(text)

    def at(self, path: str) -> None:
        self.until(lambda: self.js("return location.pathname") == path, f"not at {path}")

    def js(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def complaints(self) -> list[str]:
        """What the browser's console holds against us: script errors, refused resources, broken policy."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [e["message"] for e in entries if e["level"] == "SEVERE" and "favicon" not in e["message"]]

    def shot(self, name: str, *, always: bool = False) -> None:
        folder = SHOTS or ("/tmp" if always and os.environ.get("CI_SHOTS") else "")
        if folder:
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def log_in(self, name: str, password: str) -> None:
        self.driver.delete_all_cookies()
        self.open("/login")
        self.fill("input[name=name]", name)
        self.fill("input[name=password]", password)
        self.click("button[type=submit]")

    def settled(self) -> None:
        """The live connection stands and the strip has its figures."""
        self.see(".cb-live:not(.down)")
        self.until(lambda: len(self.all(".cb-lv")) == 4, "no figures in the strip")


@pytest.fixture(scope="session")
def browser(console: Console) -> Iterator[Browser]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    tool = shutil.which("chromedriver")
    if binary is None or tool is None:
        pytest.skip("no Chromium here: install the packages chromium and chromium-driver")
    options = Options()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(tool))
    try:
        yield Browser(console, driver)
    finally:
        driver.quit()
