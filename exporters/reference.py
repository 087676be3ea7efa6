"""`python -m exporters.reference > docs/metrics.md`: every metric that an exporter may publish, as a page of tables."""

from collections.abc import Iterable, Mapping, Sequence

from exporters import own
from exporters.families import Family
from exporters.registry import EXPORTERS, exporter

OPENING = """\
# Metrics of the exporters

Made by `python -m exporters.reference > docs/metrics.md` from what the exporters declare; nothing else is on their
pages, so this file is not to be edited. Names are as in a query. A histogram has `_bucket`, `_sum` and `_count` behind
its name. What could not be read is absent; it is never 0.
"""


def families_by_exporter() -> dict[str, Sequence[Family]]:
    """What each exporter declares, and under `every exporter` what the chassis adds to each page."""
    return {**{name: exporter(name).FAMILIES for name in EXPORTERS}, "every exporter": own.FAMILIES}


def reference(families: Mapping[str, Iterable[Family]]) -> str:
    """The page. Raises ValueError where a metric is declared twice: it could not mean two things."""
    lines = [OPENING]
    seen: dict[str, str] = {}
    for title, declared in families.items():
        lines += [
            f"## {title}",
            "",
            "| metric | type | unit | labels | meaning | source |",
            "|---|---|---|---|---|---|",
        ]
        for family in declared:
            if family.series in seen:
                raise ValueError(f"{family.series} is declared by {seen[family.series]} and again by {title}")
            seen[family.series] = title
            named = ", ".join(f"`{label}`" for label in family.labels)
            cells = (f"`{family.series}`", family.kind, family.unit, named, family.meaning, family.source)
            lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |".replace("|  |", "| |"))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(reference(families_by_exporter()), end="")
