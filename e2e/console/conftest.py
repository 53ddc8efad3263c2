"""A real service, whose jobs run `torchrun` of this folder, and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SHOTS = Path(os.environ.get("TRAINER_SCREENSHOTS", ROOT / "target/console-screenshots"))
TOKEN = "a-token-of-the-tests"


@dataclass
class Service:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes]
    data: Path
    token: str

    def send(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Sends a request past the browser."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("X-TRAINER-TOKEN", self.token)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else {}

    def submit(self, run_id: str, **fields: object) -> str:
        """Submits a job and returns its name."""
        dataset = str(fields.get("dataset_uri", f"file://{self.data}/data/"))
        # The service refuses a dataset that is not there.
        Path(dataset.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
        body = {
            "framework": "meta",
            "model_id": "llama-debug",
            "run_id": run_id,
            "checkpoint_base_uri": f"file://{self.data}/runs",
            "dataset_uri": dataset,
            "gpus_per_node": 0,
            **fields,
        }
        return str(self.send("POST", "/train", body)["name"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(data: Path, token: str) -> Service:
    (data / "python/bin").mkdir(parents=True)
    (data / "data").mkdir()
    shutil.copy(ROOT / "e2e/console/torchrun", data / "python/bin/torchrun")
    url = f"http://127.0.0.1:{free_port()}"
    settings = {
        "TRAINER_LISTEN": url.removeprefix("http://"),
        "TRAINER_API_TOKEN": token,
        "TRAINER_DATA_DIR": str(data / "service"),
        "TRAINER_LOCAL_PYTHON": str(data / "python"),
        "TRAINER_LOCAL_SLOTS": "8",
    }
    binary = ROOT / "target/release/trainer"
    environment = {**os.environ, **settings}
    with (data / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "serve"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return Service(url, process, data, token)
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, (data / "service.log").read_text()
            assert time.monotonic() < deadline, "the service does not start"
            time.sleep(0.1)


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service without a token, unless the test asks for one."""
    running = start(tmp_path, getattr(request, "param", ""))
    yield running
    running.process.terminate()
    running.process.wait(timeout=60)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("TRAINER_CHROMIUM") or shutil.which("chromium")
    assert executable, "TRAINER_CHROMIUM names no Chromium"
    # Root in a container cannot use Chromium's own sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(20_000)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that may log no error: neither of a script nor of the content policy."""
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    # A refused request is logged as an error too, and is part of the story.
    refused = "Failed to load resource"
    opened.on(
        "console",
        lambda message: (
            faults.append(message.text)
            if message.type == "error" and refused not in message.text
            else None
        ),
    )
    yield opened
    assert faults == []


def shot(page: Page, name: str) -> None:
    """Keeps a picture of a page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")
