"""`python -m testbed fetch|services|where|clean`: the cache of real parts, from the command line."""

import argparse
import sys

from testbed import fetch

ABOUT = """\
The real parts (Redis, Prometheus, promtool, Alertmanager, amtool) for the demo, the tests and the benchmarks.

They are fetched as Debian or Ubuntu packages with apt, their signatures checked, and unpacked into a cache folder:
nothing is installed, no service starts, no root is needed. `make demo` and `make test` do this by themselves.

  fetch      fetch them unless they are there (70 MB, about half a minute), and print their folder
  services   the same for what only tests and benchmarks of the exporters need: PostgreSQL, RabbitMQ, HAProxy, nginx,
             Debian's exporters for Prometheus (140 MB)
  docker     the same for a Docker daemon of one's own, which only root can start (60 MB)
  where      print the folder of the parts, or say that they are not there yet
  clean      remove all of them
"""
SETTINGS = """\
environment:
  TIDEWISE_CACHE          the cache folder (otherwise $XDG_CACHE_HOME/tidewise or ~/.cache/tidewise)
  TIDEWISE_DEBIAN_MIRROR  a mirror of Debian (otherwise the one in this machine's apt sources; on Ubuntu Debian's own)

Proxies are those of the machine's apt (/etc/apt/apt.conf.d).
"""
COMMANDS = ("fetch", "services", "docker", "where", "clean")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed",
        description=ABOUT,
        epilog=SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar=" | ".join(COMMANDS))
    command = parser.parse_args(arguments).command
    try:
        if command == "fetch":
            print(fetch.ensure(_say))
        elif command == "services":
            print(fetch.ensure_services(_say))
        elif command == "docker":
            print(fetch.ensure_docker(_say))
        elif command == "clean":
            removed = fetch.clean()
            print(f"removed {removed} from {fetch.cache_folder()}" if removed else f"nothing in {fetch.cache_folder()}")
        elif (tree := fetch.find()) is not None:
            print(tree)
        else:
            print("not fetched yet: run `python -m testbed fetch`", file=sys.stderr)
            return 1
    except fetch.FetchError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testbed: interrupted; nothing half-made was left behind", file=sys.stderr)
        return 130
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
