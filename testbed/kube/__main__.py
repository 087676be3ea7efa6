"""`python -m testbed.kube build|where|clean`: the Kubernetes control plane, from the command line."""

import argparse
import sys

from testbed.fetch import FetchError, cache_folder
from testbed.kube import build

ABOUT = f"""\
A real Kubernetes control plane (API server, etcd, controller manager, scheduler) with kwok, which plays the nodes, and
helm: for the tests and the acceptance. Nothing is installed, no container runs, no root is needed.

  build   build it from source unless it is there ({build.EXPECTED}), and print its folder
  where   print its folder, or say why it is not there
  clean   remove it
"""
SETTINGS = """\
environment:
  TIDEWISE_CACHE       the cache folder (otherwise $XDG_CACHE_HOME/tidewise or ~/.cache/tidewise)
  GOPROXY              where the modules come from, as for Go itself
  GOCACHE, GOMODCACHE  when set, used and kept; otherwise folders in the cache that are removed after the build
  SKIP_KUBE=1          tests on Kubernetes skip, and `build --optional` does nothing
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.kube",
        description=ABOUT,
        epilog=SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["build", "where", "clean"], metavar="build | where | clean")
    parser.add_argument(
        "--optional", action="store_true", help="where SKIP_KUBE is set or Go is missing, say so: no error"
    )
    given = parser.parse_args(arguments)
    try:
        if given.command == "build":
            if given.optional and build.is_skipped():
                print("testbed: Kubernetes is left out: SKIP_KUBE is set", file=sys.stderr)
                return 0
            print(build.ensure(lambda line: print(line, file=sys.stderr, flush=True)))
        elif given.command == "clean":
            removed = build.clean()
            print(f"removed {removed} from {cache_folder()}" if removed else f"nothing in {cache_folder()}")
        elif (tree := build.find()) is not None:
            print(tree)
        else:
            print(build.absence(), file=sys.stderr)
            return 1
    except build.NoGoError as error:
        print(f"testbed: Kubernetes is left out: {error}" if given.optional else f"testbed: {error}", file=sys.stderr)
        return 0 if given.optional else 1
    except (build.BuildError, FetchError) as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testbed: stopped; what was compiled so far is kept and the next build goes on from it", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
