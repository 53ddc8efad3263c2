"""The console in a real browser."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKEN, Service, shot
from playwright.sync_api import BrowserContext, Page, Route, expect

MARKUP = "<img src=x onerror=window.hacked=1>"
TABS = ["Overview", "Log", "Configuration", "Manifest"]


def fill_run(page: Page, data: Path, run_id: str) -> None:
    page.get_by_label("Framework").select_option("meta")
    for name, text in [
        ("run_id", run_id),
        ("model_id", "llama-debug"),
        ("dataset_uri", f"file://{data}/data/"),
        ("checkpoint_base_uri", f"file://{data}/runs"),
        ("gpus_per_node", "0"),
    ]:
        page.locator(f"#field-{name}").fill(text)


def open_group(page: Page, title: str) -> None:
    group = page.locator("details", has=page.locator("summary", has_text=title)).first
    if group.get_attribute("open") is None:
        group.locator("summary").click()


def test_a_run_from_the_form_to_its_deletion(service: Service, page: Page) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(service.url)
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    shot(page, "empty")

    # A typo, which the preview shows at its field.
    page.get_by_role("main").get_by_role("link", name="New run").click()
    fill_run(page, service.data, "story-1")
    rate = page.locator("#field-arg-lr")
    rate.fill("fast")
    expect(rate).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field", has=rate).locator(".fault")).to_contain_text("number")
    shot(page, "new-with-a-typo")
    rate.fill("0.003")
    expect(page.locator(".preview")).to_contain_text("It can run as meta-story-1")
    expect(page.locator(".preview")).to_contain_text("world size 1")
    open_group(page, "More")
    page.locator("#field-env").fill("PAUSE: 0.25\nSTEPS: 4000")
    expect(page.locator(".preview")).to_contain_text("It can run")
    shot(page, "new")
    page.get_by_role("button", name="Submit").click()

    # The curve grows while one looks.
    expect(page.get_by_role("heading", name="meta-story-1")).to_contain_text("running")
    chart = page.get_by_role("img", name=re.compile("^Loss: last value"))
    expect(chart).to_be_visible()
    before = chart.get_attribute("aria-label")
    expect(chart).not_to_have_attribute("aria-label", before or "")
    page.wait_for_timeout(3000)
    shot(page, "run")

    # The log follows.
    page.get_by_role("tab", name="Log").click()
    lines = page.locator(".log p")
    expect(lines.nth(2)).to_be_visible()
    count = lines.count()
    expect(lines.nth(count + 3)).to_be_attached()
    page.get_by_label("Search the log").fill('"step": 2,')
    expect(lines).to_have_count(1)
    shot(page, "log")
    page.get_by_role("tab", name="Configuration").click()
    expect(page.get_by_role("row", name=re.compile("^lr 0.003"))).to_contain_text("differs")
    shot(page, "configuration")
    page.get_by_role("tab", name="Manifest").click()
    expect(page.get_by_label("manifest", exact=True)).to_contain_text("kind: PyTorchJob")

    page.get_by_role("button", name="Suspend").click()
    expect(page.get_by_role("heading", name="meta-story-1")).to_contain_text("suspended")
    expect(page.locator(".cause")).to_contain_text("The job is suspended")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", name="meta-story-1")).to_contain_text("running")

    # A clone has the next run id and everything else of the run.
    page.get_by_role("link", name="Clone").click()
    expect(page.locator("#field-run_id")).to_have_value("story-2")
    expect(page.locator("#field-arg-lr")).to_have_value("0.003")
    page.locator("#field-arg-lr").fill("0.01")
    open_group(page, "More")
    page.locator("#field-env").fill("PAUSE: 0.25\nSTEPS: 4000\nDECAY: 0.05\nHF_OWN: a")
    expect(page.locator(".preview")).to_contain_text("It can run as meta-story-2")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="meta-story-2")).to_contain_text("running")
    page.get_by_role("link", name="Clone").click()
    expect(page.locator("#field-env")).to_have_value(re.compile("HF_OWN: a"))
    page.go_back()
    expect(page.get_by_role("img", name=re.compile("^Loss: last value"))).to_be_visible()

    # Both are in the list, with progress, and can be compared.
    page.get_by_role("navigation").get_by_role("link", name="Runs").click()
    rows = page.locator("table.runs tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first.locator("progress")).to_be_visible()
    expect(rows.last.locator("progress")).to_be_visible()
    shot(page, "runs")
    page.get_by_label("Search runs").fill("story-2")
    expect(rows).to_have_count(1)
    page.get_by_label("Search runs").fill("")
    page.get_by_label("Select all").check()
    page.get_by_role("main").get_by_role("link", name="Compare").click()
    expect(page.get_by_role("row", name=re.compile("extra_args.lr"))).to_contain_text("0.01")
    expect(page.get_by_role("img", name=re.compile("^Loss: last value"))).to_be_visible()
    shot(page, "compare")

    page.get_by_role("navigation").get_by_role("link", name="Runs").click()
    page.get_by_label("Select all").check()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()


def test_frameworks_api_dark_and_phone(service: Service, page: Page) -> None:
    service.submit("seen-1", env={"STEPS": "30"})
    failed = service.submit("failed-1", env={"STEPS": "1", "FAIL": "1"})
    page.goto(f"{service.url}/#/frameworks/meta")
    expect(page.get_by_role("heading", name=re.compile("^meta "))).to_be_visible()
    page.get_by_label("Search arguments").fill("learning rate peak")
    expect(page.get_by_role("row", name=re.compile("^lr "))).to_be_visible()
    shot(page, "frameworks")
    page.goto(f"{service.url}/#/api")
    operation = page.locator(".opblock", has_text="/healthz")
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text('"status": "ok"')
    shot(page, "api")
    page.get_by_role("link", name="Trainer", exact=True).click()
    page.get_by_label("Colours").select_option("dark")
    page.goto(f"{service.url}/#/run/default/{failed}")
    expect(page.locator(".cause")).to_contain_text("It failed")
    shot(page, "failed-dark")
    page.set_viewport_size({"width": 390, "height": 780})
    page.goto(f"{service.url}/#/runs")
    expect(page.locator("table.runs tbody tr")).to_have_count(2)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, f"the page is {width} pixels wide on a phone"
    shot(page, "runs-phone")


def test_a_job_file_fills_the_form(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/#/new")
    page.get_by_role("button", name="From a job.yaml").click()
    text = f"""# A job.
framework: meta
model_id: "llama-debug"
run_id: from-file
checkpoint_base_uri: file://{service.data}/runs
dataset_uri: file://{service.data}/data/
gpus_per_node: 0
extra_args:
  learning_rate: 1e-4
  surprise: [1, 2]
labels:
  team: vision
"""
    page.locator("#import").fill(text)
    page.get_by_role("button", name="Fill the form").click()
    expect(page.locator("#field-run_id")).to_have_value("from-file")
    expect(page.locator("#field-arg-lr")).to_have_value("0.0001")
    expect(page.locator("#field-others")).to_have_value("surprise: [1,2]")
    expect(page.locator(".preview")).to_contain_text("It can run as meta-from-file")
    expect(page.locator(".preview")).to_contain_text("W05")


def test_nothing_that_others_write_is_ever_markup(service: Service, page: Page) -> None:
    hostile = service.submit(
        "hostile-1",
        model_id=MARKUP,
        dataset_uri=f"file://{service.data}/{MARKUP.replace(' ', '/')}",
        extra_args={"x_note": MARKUP, "dataset_text_field": MARKUP},
        env={"STEPS": "5", "FAIL": "1", "NOTE": MARKUP},
        annotations={"note": MARKUP},
    )
    page.goto(service.url)
    expect(page.locator("table.runs")).to_contain_text(MARKUP)
    addresses = [
        "runs",
        "frameworks",
        f"new?clone=default%2F{hostile}",
        f"compare?run=default%2F{hostile}",
    ]
    addresses += [
        f"compare?run=default%2F{hostile}&run={MARKUP}",
        f"run/default/{MARKUP}",
        f"{MARKUP}",
    ]
    for address in addresses:
        page.goto(f"{service.url}/#/{address}")
        page.wait_for_timeout(500)
        assert_harmless(page)
    page.goto(f"{service.url}/#/run/default/{hostile}")
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(500)
        assert_harmless(page)
    page.get_by_role("tab", name="Log").click()
    first = page.locator(".log p").first
    # Neither colours nor a title of the terminal nor marks that reorder text.
    expect(first).to_have_text(f"red {MARKUP}� hidden")
    shot(page, "hostile-log")


def test_the_reference_shows_texts_of_plugins_as_text(service: Service, page: Page) -> None:
    real: Any = service.send("GET", "/openapi.json")
    hostile = copy.deepcopy(real)
    hostile["info"]["summary"] = hostile["tags"][0]["description"] = MARKUP
    hostile["components"]["parameters"]["Idempotency-Key"]["description"] = MARKUP
    post = hostile["paths"]["/train"]["post"]
    post["summary"] = post["description"] = MARKUP
    for example in post["requestBody"]["content"]["application/json"]["examples"].values():
        example.update(summary=MARKUP, value={"framework": MARKUP})
    violations: list[str] = []
    page.on("console", lambda line: violations.append(line.text) if "Policy" in line.text else None)
    operation = page.locator("#operations-jobs-createJob")
    for document in (real, hostile):
        page.route("**/openapi.json", with_json(document))
        page.goto(f"{service.url}/console/reference.html")
        operation.locator(".opblock-summary").click()
        expect(operation.locator("textarea")).to_be_visible()
        assert page.evaluate("window.hacked") is None
        assert page.locator("img[src='x']").count() == 0
        assert violations == []
    expect(operation).to_contain_text(MARKUP)


def with_json(document: object) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=document)


def assert_harmless(page: Page) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.locator("#app img, #app script, #app iframe").count() == 0


@pytest.mark.parametrize("service", [TOKEN], indirect=True)
def test_a_token_is_asked_for_and_stays_in_the_tab(
    service: Service, page: Page, context: BrowserContext
) -> None:
    name = service.submit("guarded-1", env={"STEPS": "3000"})
    page.goto(service.url)
    expect(page.get_by_role("heading", name="This service asks for a token")).to_be_visible()
    shot(page, "token")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_contain_text("refused the token")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("table.runs")).to_contain_text(name)
    page.goto(f"{service.url}/#/run/default/{name}?tab=configuration")
    expect(page.get_by_label("curl command", exact=True)).to_contain_text("$TRAINER_API_TOKEN")
    page.goto(f"{service.url}/#/run/default/{name}?tab=log")
    assert TOKEN not in page.content()
    assert TOKEN not in page.evaluate(
        "JSON.stringify({...localStorage}) + document.cookie + location.href"
    )
    other = context.new_page()
    other.goto(service.url)
    expect(other.get_by_role("heading", name="This service asks for a token")).to_be_visible()


def test_the_page_is_there_at_once(service: Service, page: Page) -> None:
    times = []
    for _ in range(5):
        page.goto(service.url)
        expect(page.get_by_role("heading").first).to_be_visible()
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        page.wait_for_function(paint)
        times.append(page.evaluate(paint))
    print(f"first contentful paint in {sorted(times)} ms")
