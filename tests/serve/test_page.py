"""The page on real models, through the proxy; `--update-golden` takes the README's picture of it."""

from pathlib import Path
from urllib.parse import urlsplit

from tests.harness.browser import browsing

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "page.png"
LARGEST_PICTURE = 150_000


def test_a_person_asks_a_sample_model_by_keyboard(service, request):
    with browsing() as page:
        page.size(1000, 760)
        page.open(service.url("/"))
        page.wait(f"document.querySelectorAll('#models a').length === {len(service.models())}")
        page.tab_to("#models a[href='#model=sentiment']")
        page.press("Enter")
        page.wait_for_text("text-classification", "#facts")
        page.tab_to("#field-text")
        page.write("I love this product")
        page.press("Enter", "Control")
        page.wait_for_text("Answered in", "#progress")
        page.wait_for_text("POSITIVE", "#answer")
        assert {urlsplit(address).port for address in page.requests} == {service.port}
        assert page.complaints == []
        if request.config.getoption("--update-golden"):
            PICTURE.parent.mkdir(exist_ok=True)
            PICTURE.write_bytes(page.screenshot())


def test_the_picture_in_the_readme_is_small():
    assert PICTURE.stat().st_size < LARGEST_PICTURE
