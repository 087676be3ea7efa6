"""`tidewise`: one command, one word for each controller and each question."""

import importlib
import os
import sys

from controllers.registry import COMMANDS, CONTROLLERS
from exporters.runtime.config import ConfigError
from exporters.runtime.endpoint import EndpointError
from exporters.runtime.process import version

HELP = """\
usage: tidewise COMMAND [options]

Keeps a fleet of workers ahead of its demand and inside its budget.

Processes (run until stopped; each serves /metrics)
  forecast   learn a month of demand, publish the next hour with quantiles
  scale      decide the replicas of every workload, and set them where the mode is 'act'
  budget     keep the ledger: permits, spend, levels ('budget status' and 'budget statement' print tables)
  recovery   mend declared failures step by step, and page ('recovery status' and 'recovery why TARGET' explain)

Questions
  bottleneck what holds WORKLOAD back, and what to change?
  check      is the configuration right, and does Prometheus have what it names?
  floors     which floors are under people's own autoscalers? (--expire gives back those that are over)
  replay     what would each policy, and 'act', have cost on your own past?
  rules      print the recording rules of the workloads, for Prometheus
  schema     print the configuration's JSON Schema, for editors
  why        why does WORKLOAD have this many replicas?

Steering (by people, for a time; who, when and what is kept)
  surge      more replicas of WORKLOAD until a time
  pause      no change of WORKLOAD, upwards, downwards or at all, until a time
  resume     end all overrides of WORKLOAD
  overrides  what is in force, and what was
  promote    would `act` have done well on WORKLOAD? then the change of the configuration that makes it act
  init       write a first configuration, in shadow mode, from what a cluster, a cloud and Prometheus have

First steps
  tidewise init                              (or by hand: docs/configuration.md shows 15 lines)
  tidewise check tidewise.yaml
  tidewise rules --config tidewise.yaml --out rules/workloads.yml
  tidewise forecast --config tidewise.yaml
  tidewise scale --config tidewise.yaml      (starts in shadow mode: decides, publishes, touches nothing)
  tidewise why video-analysis

'tidewise COMMAND --help' tells more. The exporters are a program of their own: tidewise-exporter --help
"""


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the answer is no or something is missing, 2 wrong usage or configuration, 130 Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] in ("--version", "version"):
        print(f"tidewise {version()}")
        return 0
    command, rest = arguments[0], arguments[1:]
    known = {**CONTROLLERS, **COMMANDS}
    if command not in known:
        from exporters.runtime.config import nearest

        print(f"tidewise: '{command}' is no command{nearest(command, list(known))}", file=sys.stderr)
        return 2
    if command in ("forecast", "replay"):
        # numpy, which it imports, reads these once: on matrices this small more threads cost twice the CPU
        for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
    try:
        module, _, name = known[command].partition(":")
        status: int = getattr(importlib.import_module(module), name or "main")(rest)
    except (ConfigError, EndpointError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `tidewise why … | head`
        sys.stderr.close()
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
