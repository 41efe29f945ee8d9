"""The pages in a real browser: a customer in the widget, an agent in the inbox, each seeing the other live."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.hub_process import HubProcess, client

pytestmark = pytest.mark.timeout(90)
WORDS = Path(__file__).parent.parent.parent / "web" / "static" / "assets" / "words.js"
# `HUB_TEST_SCREENSHOTS=folder` keeps pictures to look at.
PICTURES = os.environ.get("HUB_TEST_SCREENSHOTS")


async def picture(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=f"{PICTURES}/{name}.png")


async def signed_in(browser: Browser, hub: HubProcess, **context: object) -> Page:
    page = await (await browser.new_context(locale="en-US", **context)).new_page()  # type: ignore[arg-type]
    await page.goto(hub.url)
    await picture(page, f"sign-in-{context.get('color_scheme', 'light')}")
    await page.get_by_test_id("login-email").fill("ana@demo.test")
    await page.get_by_test_id("login-password").fill("demo")
    await page.get_by_test_id("login-submit").click()
    await expect(page.locator("#list")).to_be_visible()
    return page


async def test_a_customer_in_the_widget_and_an_agent_in_the_inbox_talk(hub: HubProcess, browser: Browser) -> None:
    problems: list[str] = []
    inbox = await signed_in(browser, hub)
    shop = await (await browser.new_context(locale="es-VE")).new_page()
    for page in (inbox, shop):
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    await shop.goto(f"{hub.url}/demo")
    await shop.get_by_test_id("widget-open").click()
    words = f"¿Hacen envíos a Mérida? {secrets.token_hex(4)}"
    await shop.get_by_test_id("widget-input").fill(words)
    await shop.get_by_test_id("widget-send").click()
    item = inbox.get_by_test_id("conversation-item").filter(has_text=words)
    await expect(item).to_be_visible()
    await item.click()
    await expect(inbox.get_by_test_id("message").filter(has_text=words)).to_be_visible()
    await inbox.get_by_test_id("composer-input").fill("¡Claro que sí! <b>Mañana</b> mismo.")
    await inbox.get_by_test_id("composer-send").click()
    answer = shop.get_by_test_id("widget-message").filter(has_text="¡Claro que sí! <b>Mañana</b> mismo.")
    await expect(answer).to_be_visible()
    reply = inbox.locator('[data-testid="message"][data-kind="outbound"]')
    await expect(reply).to_have_attribute("data-status", "read")
    await expect(reply).to_have_count(1)
    await picture(inbox, "inbox-light")
    await picture(shop, "shop-light")
    await shop.reload()
    await shop.get_by_test_id("widget-open").click()
    await expect(shop.get_by_test_id("widget-message")).to_have_count(2)
    await inbox.get_by_test_id("resolve").click()
    await expect(item).to_have_count(0)
    assert problems == []


async def test_the_keyboard_is_enough(hub: HubProcess, browser: Browser) -> None:
    mark = secrets.token_hex(4)
    async with client(hub) as http:
        for n in range(3):
            item = {"external_id": f"{mark}{n}", "from": f"{mark}{n}", "name": f"Cliente {n}", "text": f"{mark} {n}"}
            await http.post("/v1/channels/demo-api/inbound", json=item)
    page = await signed_in(browser, hub, color_scheme="dark")
    await page.keyboard.press("/")
    await page.keyboard.type(f"{mark} 1")
    await expect(page.get_by_test_id("conversation-item")).to_have_count(1)
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("message").first).to_contain_text(f"{mark} 1")
    await page.keyboard.press("n")
    await page.keyboard.type("Nota para el equipo")
    await picture(page, "inbox-dark")
    await page.keyboard.press("Enter")
    await expect(page.locator('[data-testid="message"][data-kind="note"]')).to_have_count(1)
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.locator("dialog")).to_be_visible()


async def test_a_phone_shows_one_pane_at_a_time(hub: HubProcess, browser: Browser) -> None:
    mark = secrets.token_hex(4)
    async with client(hub) as http:
        item = {"external_id": mark, "from": mark, "name": "María José", "text": f"Hola {mark}"}
        await http.post("/v1/channels/demo-api/inbound", json=item)
    page = await signed_in(browser, hub, viewport={"width": 390, "height": 844}, color_scheme="dark")
    await picture(page, "phone-list")
    await page.get_by_test_id("conversation-item").filter(has_text=mark).click()
    await expect(page.get_by_test_id("thread")).to_be_visible()
    await expect(page.locator("#list")).to_be_hidden()
    await picture(page, "phone-thread")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.locator(".back").click()
    await expect(page.locator("#list")).to_be_visible()


async def test_the_inbox_comes_back_after_its_connection_was_cut(hub: HubProcess, browser: Browser) -> None:
    page = await signed_in(browser, hub)
    mark = secrets.token_hex(4)
    await page.context.set_offline(True)
    await page.evaluate("1")
    async with client(hub) as http:
        item = {"external_id": mark, "from": mark, "name": "Durante el corte", "text": mark}
        await http.post("/v1/channels/demo-api/inbound", json=item)
    await page.context.set_offline(False)
    await expect(page.get_by_test_id("conversation-item").filter(has_text=mark)).to_be_visible(timeout=15_000)


def test_no_language_misses_a_word() -> None:
    blocks = re.findall(r"^  (\w\w): \{(.*?)^  \},", WORDS.read_text(), re.M | re.S)
    words = {code: set(re.findall(r"(\w+): \"", block)) for code, block in blocks}
    assert set(words) == {"es", "en", "pt"}
    assert words["es"] == words["en"] == words["pt"]


def test_the_widget_is_small() -> None:
    import gzip

    widget = WORDS.parent.parent / "widget.js"
    assert len(gzip.compress(widget.read_bytes())) < 40_000
