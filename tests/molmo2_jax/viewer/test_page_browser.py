"""The page of `molmo2 inspect` in a real browser: clicks, keys and what the page shows then."""

import os

import numpy as np
import pytest

from molmo2_jax.viewer.answers import Answer
from molmo2_jax.viewer.branch_gradients import GradientTable
from molmo2_jax.viewer.page import render_page, write_page
from molmo2_jax.viewer.thumbnails import thumbnails
from tests.molmo2_jax.viewer import browser as chromium
from tests.molmo2_jax.viewer.rows import story

pytestmark = pytest.mark.slow

FILTER = "tr[data-dataset={}] button"
STAGE = "#r0e0 .stage .whole"


@pytest.fixture(scope="module")
def address(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    rows, names = story(tokenizer)
    annotated = '<points coords="1.0 1 300 600;2.0 2 400 600">ball</points>'
    answers = [Answer("Where is the ball?", annotated, annotated.replace("400", "410"))]
    write_page(path, render_page(rows=rows, tok=tokenizer, title="A story", examples=names, answers=answers))
    return path.as_uri()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    program = chromium.find_browser()
    if program is None:
        if os.environ.get("CI_BROWSER") == "1":
            pytest.fail("CI_BROWSER is 1, but there is no chromium")
        pytest.skip("no chromium: apt-get install chromium")
    browser = chromium.Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(tab, address):
    """The page, newly opened. No test may cause an error, a warning or a request."""
    tab.problems.clear()
    tab.requests.clear()
    tab.open(address)
    yield tab
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.run("document.querySelectorAll('img, b b, .tokens b').length") == 0
    assert tab.problems == []
    fetched = {request for request in tab.requests if not request.startswith("data:")}
    assert fetched <= {"about:blank", address}


def address_state(page):
    """The state that the page keeps in its address, as a dict."""
    return page.run("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")


def test_the_head_has_totals_and_datasets(page):
    assert page.texts(".totals li")[:2] == ["3 rows", "6 examples"] and page.texts(".totals li")[-1] == "1 failed"
    assert [row[:6] for row in page.texts(".datasets tbody tr")] == ["balls2", "pixmo_", "chat20"]
    assert page.texts(".smaller") == []
    assert page.texts(".row-count") == ["row 0 · 1 of 3"] and page.texts(".row h2") == ["row 0"]


def test_a_dataset_is_a_filter(page):
    page.click(FILTER.format("chat"))
    assert page.texts(".example .name") == ["chat · talk-1"]
    assert page.texts(".hidden-examples") == ["1 example of other datasets"]
    assert page.texts(".row-count") == ["row 0 · 1 of 2"]
    page.click(".step.next")  # row 1 has no such example
    assert page.texts(".row-count") == ["row 2 · 2 of 2"] and page.texts(".example .name") == ["chat · talk-2"]
    assert address_state(page) == {"row": "2", "dataset": "chat"}
    page.click(FILTER.format("pixmo_points"))
    assert page.texts(".row-count") == ["row 1 · 1 of 1"]
    page.click(".chip")
    assert page.texts(".row-count") == ["row 1 · 2 of 3"] and page.texts(".chip") == []


def test_buttons_keys_and_bars_select_rows(page):
    page.click(".step.next")
    assert page.texts(".row h2") == ["row 1"]
    for key, row in (("j", 2), ("j", 2), ("k", 1), ("ArrowLeft", 0), ("ArrowLeft", 0), ("ArrowRight", 1)):
        page.press(key)
        assert page.texts(".row h2") == [f"row {row}"]
    page.click(".rowbar:nth-child(3)")
    assert page.texts(".row h2") == ["row 2"]
    assert page.texts(".badge") == ["failed: media: clip-2.mp4 is cut off"]
    assert page.texts(".example .name")[0] == "balls · clip-<b>2"


def test_the_slider_selects_frames_by_time(page):
    assert page.texts("#r0e0 .caption") == ["0.0 s · 1 of 7 · crop 0 · 1 point"]
    assert page.texts("#r0e0 .subtitle") == ["Look at the ball."]
    page.click("#r0e0 .slider", right=0.52)  # between 1.5 s and 2.0 s: the earlier frame
    assert page.texts("#r0e0 .caption") == ["1.5 s · 4 of 7 · crop 3 · 2 points"]
    assert page.texts("#r0e0 .subtitle") == ["There <b>it</b> goes."]
    assert page.texts("#r0e0 .transcript .on") == ["1.2–2.2There <b>it</b> goes."]
    assert page.run(f"document.querySelector('{STAGE} image').dataset.crop") == "3"
    page.press("ArrowRight")  # the slider has the focus: the next frame, not the next row
    assert page.texts("#r0e0 .caption") == ["2.0 s · 5 of 7 · crop 4 · 3 points"]
    assert page.texts("#r0e0 .strip .on") == ["2.0 s"]
    assert address_state(page) == {"row": "0", "example": "0", "picture": "4"}
    page.click("#r0e0 .strip figure:nth-child(7)")
    assert page.texts("#r0e0 .caption") == ["3.0 s · 7 of 7 · crop 6 · 2 points"]


def test_play_runs_to_the_end(page):
    page.click("#r0e0 .strip figure:nth-child(6)")
    page.click("#r0e0 .play")
    assert page.texts("#r0e0 .play") == ["❚❚ pause"]
    page.wait("document.querySelector('#r0e0 .caption').textContent.startsWith('3.0 s')")
    page.wait("document.querySelector('#r0e0 .play').textContent.endsWith('play')")


def test_points_and_tracks_are_drawn_at_their_coordinates(page):
    page.click("#r0e0 .strip figure:nth-child(5)")
    rings = (
        f"[...document.querySelectorAll('{STAGE} .ring')].map((one) => [one.cx, one.cy].map((n) => n.baseVal.value))"
    )
    at = [[378 * x, 378 * y] for x, y in [(0.4, 0.6), (0.64, 0.3), (0.4, 0.6)]]
    assert [pytest.approx(place, abs=0.01) for place in at] == page.run(rings)
    assert page.texts(f"{STAGE} text") == ["1", "2", "2 ball"]
    paths = f"[...document.querySelectorAll('{STAGE} .path')].map((one) => [one.dataset.object, one.getAttribute('d')])"
    past, later, other, _ = page.run(paths)
    assert past == ["1", "M75.6 226.8L94.5 226.8L113.4 226.8L132.3 226.8L151.2 226.8"]
    assert later == ["1", "M151.2 226.8L170.1 226.8L189.0 226.8"] and other[0] == "2"
    colours = page.run(
        f"[...document.querySelectorAll('{STAGE} .path')].map((one) => one.style.getPropertyValue('--c'))"
    )
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert page.texts("#r0e0 .lane button") == ["A · balls 1", "A · balls 2", "B · ball"]
    page.click("#r0e0 .lane button")  # hides both objects of the tag
    assert page.texts(f"{STAGE} text") == ["2 ball"]
    page.click("#r0e0 .lane button")
    assert page.texts(f"{STAGE} text") == ["1", "2", "2 ball"]


def test_images_have_an_overview_and_detail_crops(page):
    page.press("j")
    assert page.texts("#r1e0 .caption") == ["image 1 · 1 of 1 · crop 0 · 2 detail crops · 1 point"]
    details = (
        "[...document.querySelectorAll('#r1e0 .detail image')].map((one) => [one.dataset.crop, one.x.baseVal.value])"
    )
    assert page.run(details) == [["1", 0], ["2", 266]]
    centre = "((one) => [one.cx.baseVal.value, one.cy.baseVal.value])(document.querySelector('#r1e0 .{} .ring'))"
    assert page.run(centre.format("whole")) == pytest.approx([0.3 * 378, 0.6 * 378], abs=0.01)
    assert page.run(centre.format("detail")) == pytest.approx([0.3 * 644, 0.6 * 378], abs=0.01)
    assert page.texts("#r1e1 .strip figcaption") == ["image 1", "image 2"]
    page.click("#r1e1 .strip figure:nth-child(2)")
    assert page.texts("#r1e1 .caption") == ["image 2 · 2 of 2 · crop 5 · 1 detail crop · 1 point"]


def test_tokens_have_colours_numbers_and_folds(page):
    assert page.texts("#r0e0 .fold") == ["81 × <im_patch>"] * 7
    assert page.texts("#r0e0 .last-target") == ["<|im_end|>"] * 3
    colour = "getComputedStyle(document.querySelector('{}')).backgroundColor"
    kinds = [page.run(colour.format(f"#r0e0 .t.{kind}")) for kind in ("visual", "control", "answer", "text")]
    assert len(set(kinds)) == 4
    page.click("[data-colour=branch]")
    branches = [page.run(colour.format(f"#r0e0b{b} .t")) for b in range(4)]
    assert len(set(branches)) == 4 and address_state(page)["colour"] == "branch"
    page.click("[data-colour=example]")
    examples = [page.run(colour.format(f"#r0e{e} .t")) for e in range(2)]
    assert len(set(examples)) == 2 and page.run(colour.format("#r0e0b1 .t")) == examples[0]
    page.click("[data-colour=weight]")
    assert (
        page.run(colour.format("#r0e0 .fold")) == "rgba(0, 0, 0, 0)" != page.run(colour.format("#r0e0b1 .supervised"))
    )
    page.click("#r0e0b1 .supervised")
    tip = page.texts("#tip")[0].split("\n")
    names = "index id position visible_until image_group weight target"
    assert " ".join(line.split()[0] for line in tip) == names
    assert "weight 0.2" in tip and tip[-1] == 'target 11275 "<tr"'


def test_a_token_shows_what_it_attends_to(page):
    page.click("#r0e0b2 .t")
    assert page.texts(".mask-text")[0].endswith("“<|im_start|>” attends to 650 tokens")  # the root's 649 and itself
    attended = "[...document.querySelectorAll('{} .t')].every((one) => one.classList.contains('key-token'))"
    assert [page.run(attended.format(f"#r0e0b{b}")) for b in range(4)] == [True, False, False, False]
    page.click("#r0e0 .fold:nth-of-type(n+20)")  # a fold shows its crop, too
    crop = page.texts("#tip")[0].split("crop ")[1]
    assert f"crop {crop} " in page.texts("#r0e0 .caption")[0]
    page.press("Escape")
    assert page.run("document.querySelectorAll('.token-selected, .query-token').length") == 0
    page.click("[data-branch=r0e0b3]")
    assert page.run("[...document.querySelectorAll('.branch.on')].map((one) => one.id)") == ["r0e0b3"]


def test_the_mask_names_the_pair_under_the_mouse(page):
    page.click(".mask", right=0.5, down=0.99)
    assert page.texts(".mask-text")[0].endswith("(padding)") and "does not attend to" in page.texts(".mask-text")[0]
    inside = 0.06 / 1.06 + 0.02
    page.click(".mask", right=inside, down=inside + 0.05)
    assert page.texts(".mask-text")[0].endswith(", causal")
    page.click(".mask", right=inside + 0.07, down=inside)
    assert page.texts(".mask-text")[0].endswith(("same image group", "”"))


def test_texts_and_ids_are_found_in_all_rows(page):
    page.press("/")
    for letter in "penguin":
        page.press(letter)
    assert page.texts(".hits") == ["1 here, 3 in all"] and address_state(page)["find"] == "penguin"
    assert "".join(page.texts(".hit")) == " penguin"
    page.press("Enter")
    assert page.texts(".hits") == ["1 of 3"] and page.texts(".row h2") == ["row 0"]
    page.press("Enter")
    assert page.texts(".hits") == ["2 of 3"] and page.texts(".row h2") == ["row 2"]
    assert "".join(page.texts(".t.now")) == " penguin"
    page.press("Escape")
    assert page.texts(".hit") == [] and page.texts(".hits") == [""]
    page.press("/")
    for letter in "photos-2":
        page.press(letter)
    page.press("Enter")
    assert page.texts(".row h2") == ["row 1"]


def test_an_address_restores_the_state(page, address):
    page.open(f"{address}#row=0&example=0&picture=4&colour=weight&find=penguin&dataset=balls")
    assert page.texts("#r0e0 .caption") == ["2.0 s · 5 of 7 · crop 4 · 3 points"]
    assert page.texts(".chip") == ["balls ×"] and page.texts(".hits") == ["0 here, 0 in all"]
    assert page.texts("[data-colour][aria-pressed=true]") == ["weight"]
    page.run("location.hash = 'row=1'")  # as by going back
    page.wait("document.querySelector('.row h2').textContent === 'row 1'")
    page.open(f"{address}#row=99&dataset=constructor&picture=x&colour=red")
    assert page.texts(".row h2") == ["row 2"] and page.texts(".chip") == []


def test_answers_are_shown_next_to_their_annotations(page):
    assert page.texts(".answers summary") == ["0 of 1 generated answers equal the annotated ones"]
    assert page.texts(".answer mark") == ["400", "410"] and page.texts(".verdict") == ["different"]
    assert page.texts(".figures figcaption") == ["1.0 s", "2.0 s"]
    assert page.run("document.querySelectorAll('.figures .ring').length") == 2
    assert page.run("document.querySelectorAll('.figures .cross').length") == 2


def test_smaller_crops_are_reported_and_gradients_are_below_their_row(tab, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("molmo2_jax.viewer.page.thumbnails", lambda crops: thumbnails(crops, budget=20_000))
    rows, _ = story(tokenizer)
    visible = np.ones((1, 1), bool)
    tables = [GradientTable([name], [0], visible, visible * 1.0) for name in ("first", "second", "third")]
    write_page(tmp_path / "page.html", render_page(rows=rows, tok=tokenizer, title="x", gradients=tables))
    tab.open((tmp_path / "page.html").as_uri())
    (notice,) = tab.texts(".smaller")
    side = int(notice.split()[4])
    assert notice.startswith("Crops are shown at") and side < 378
    for name in ("first", "second", "third"):
        (text,) = tab.texts(".gradient-table")  # those of other rows are not shown
        assert name in text
        tab.press("j")
