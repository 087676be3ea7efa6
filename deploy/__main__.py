"""`python -m deploy`: writes what is made from something else: the chart's schema and the plain manifests."""

import argparse
import sys
from collections.abc import Sequence

from deploy.render import MANIFESTS, SCHEMA, RenderError, find_helm, render_manifests, render_schema


def main(argv: Sequence[str] | None = None) -> int:
    """0: written. 1: cannot be made; says why."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    parser.add_argument(
        "what",
        choices=("schema", "render"),
        help="schema: values.schema.json, from docs/tidewise.schema.json; render: that, and deploy/kubernetes/ (helm)",
    )
    what = parser.parse_args(argv).what
    try:
        SCHEMA.write_text(render_schema(), encoding="utf-8")
        if what == "render":
            MANIFESTS.write_text(render_manifests(find_helm()), encoding="utf-8")
    except RenderError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
