"""docs/metrics.md is what the exporters declare."""

from pathlib import Path

import pytest

from exporters.families import Counter, Gauge
from exporters.reference import families_by_exporter, reference
from exporters.registry import EXPORTERS

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_document_is_up_to_date() -> None:
    written = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    assert written == reference(families_by_exporter()), "make it anew: python -m exporters.reference > docs/metrics.md"


def test_every_exporter_has_its_table() -> None:
    text = reference(families_by_exporter())
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [*EXPORTERS, "every exporter"]


def test_a_row_tells_name_kind_unit_labels_meaning_and_source() -> None:
    text = reference(
        {
            "toys": [
                Counter("toy_moves", "Moves | of a toy.", ("toy", "way"), "the box"),
                Gauge("toy_weight_bytes", "Weight.", (), "its label"),
            ]
        }
    )
    assert text.endswith(
        "\n| `toy_moves_total` | counter | | `toy`, `way` | Moves &#124; of a toy. | the box |\n"
        "| `toy_weight_bytes` | gauge | bytes | | Weight. | its label |\n"
    )


def test_a_metric_that_two_declare_is_a_mistake() -> None:
    toy = Gauge("toy", "A toy.")
    with pytest.raises(ValueError, match=r"^toy is declared by a and again by b$"):
        reference({"a": [toy], "b": [toy]})
