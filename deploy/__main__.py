"""`python -m deploy`: writes what is made from something else: the chart's schema, the plain manifests, the
images' locks."""

import argparse
import sys
from collections.abc import Sequence

from deploy.locks import FOLDER, IMAGES, render_lock
from deploy.render import MANIFESTS, SCHEMA, RenderError, find_helm, render_manifests, render_schema


def main(argv: Sequence[str] | None = None) -> int:
    """0: written. 1: cannot be made; says why."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    parser.add_argument(
        "what",
        choices=("schema", "render", "locks"),
        help="schema: values.schema.json, from docs/tidewise.schema.json; render: that, and deploy/kubernetes/ (helm); "
        "locks: what each image installs, from requirements.lock",
    )
    what = parser.parse_args(argv).what
    if what == "locks":
        for image, wanted in IMAGES.items():
            (FOLDER / f"{image}.lock").write_text(render_lock(wanted), encoding="utf-8")
        return 0
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
