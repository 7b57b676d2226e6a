"""What the package pulls in may be used with it, and the page of licences says so."""

from licences import PAGE, Licence, closure, shipped


def test_no_dependency_of_the_package_is_under_strong_copyleft_or_says_nothing() -> None:
    refused = [one for one in shipped() if one.kind in ("strong copyleft", "unknown")]
    assert refused == []


def test_every_dependency_of_the_package_is_on_the_page() -> None:
    rows = {line.split(" | ")[0].removeprefix("| ") for line in PAGE.read_text().splitlines()}
    assert {one.name for one in shipped()} <= rows


def test_what_is_pulled_in_follows_requirements_of_requirements() -> None:
    core = closure(())
    assert {"torch", "numpy", "tokenizers"} <= core  # The last is what transformers requires.
    assert "fastapi" not in core
    assert "fastapi" in closure({"serve"})


def test_licences_are_told_apart() -> None:
    def kind(text: str) -> str:
        return Licence(name="one", version="1", text=text).kind

    assert kind("GPL-2.0-or-later") == "strong copyleft"
    assert kind("LGPL-2.1-or-later") == "weak copyleft"
    assert kind("MPL-2.0 AND MIT") == "weak copyleft"
    assert kind("GNU General Public License v3 (GPLv3)") == "strong copyleft"
    assert kind("Apache-2.0 OR GPL-3.0") == "permissive"
    assert kind("proprietary") == "unknown"
