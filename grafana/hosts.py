"""Hosts: use, saturation and errors of each machine's CPU, memory, disks and network."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import board, choice
from grafana.panels import BYTES, BYTES_PER_SECOND, COUNT, RATIO, RED, YELLOW, Panel, bars, lines, query

ON = 'instance=~"$instance"'
RATE = "[$__rate_interval]"


def dashboard() -> models.Dashboard:
    """uid tidewise-hosts."""
    return board(
        "hosts",
        "Hosts",
        "Use, saturation and errors of each machine. Pressure says who waits; utilisation alone does not.",
        [("CPU", _cpu()), ("Memory", _memory()), ("Disks", _disks()), ("Network", _network()), ("Limits", _cgroup())],
        variables=[
            choice("instance", "Machine", "Its exporter's address", "node:memory_utilization:ratio", "instance")
        ],
    )


def _pressure(resource: str) -> Panel:
    return lines(
        f"Pressure: waiting for {resource}",
        "Share of time in which some, or all (full), tasks stood still for want of it. n/a: the kernel does not tell.",
        RATIO,
        query(f'node:pressure_stalled:ratio_rate5m{{{ON}, resource="{resource}"}}', "{{instance}} {{kind}}"),
        span=8,
    )


def _cpu() -> list[Panel]:
    return [
        lines(
            "CPU in use",
            "Of all CPU time, over five minutes; waiting for disks is not use.",
            RATIO,
            query(f"node:cpu_utilization:ratio_rate5m{{{ON}}}", "{{instance}}"),
            limits=((0.9, RED),),
            high=1,
            span=8,
        ),
        _pressure("cpu"),
        lines(
            "Where CPU time goes",
            "CPUs' worth of time by kind, without idle, of all chosen machines.",
            "suffix: CPUs",
            query(f'sum by (mode) (rate(host_cpu_seconds_total{{{ON}, mode!="idle"}}{RATE}))', "{{mode}}"),
            stacked=True,
            span=8,
        ),
    ]


def _memory() -> list[Panel]:
    return [
        lines(
            "Memory in use",
            "What is not available to programs, of all.",
            RATIO,
            query(f"node:memory_utilization:ratio{{{ON}}}", "{{instance}}"),
            limits=((0.9, RED),),
            high=1,
            span=8,
        ),
        _pressure("memory"),
        lines(
            "Memory and swap",
            "Available and total memory; swap that is in use.",
            BYTES,
            query(f"host_memory_total_bytes{{{ON}}}", "{{instance}} total"),
            query(f"host_memory_available_bytes{{{ON}}}", "{{instance}} available"),
            query(f"host_swap_total_bytes{{{ON}}} - host_swap_free_bytes", "{{instance}} swap used"),
            span=8,
        ),
    ]


def _disks() -> list[Panel]:
    return [
        lines(
            "Disks busy",
            "Share of time with a request under way.",
            RATIO,
            query(f"node_device:disk_io_time:ratio_rate5m{{{ON}}}", "{{instance}} {{device}}"),
            high=1,
            span=8,
        ),
        _pressure("io"),
        lines(
            "Read and written",
            "By disk; written is below the line.",
            BYTES_PER_SECOND,
            query(f"rate(host_disk_read_bytes_total{{{ON}}}{RATE})", "{{instance}} {{device}} read"),
            query(f"-rate(host_disk_written_bytes_total{{{ON}}}{RATE})", "{{instance}} {{device}} written"),
            low=None,
            span=8,
        ),
        bars(
            "Left on file systems",
            "For programs that are not root, now.",
            RATIO,
            f"sort(node_mountpoint:filesystem_avail:ratio{{{ON}}})",
            "{{instance}} {{mountpoint}}",
            limits=((None, RED), (0.05, YELLOW), (0.25, "green")),
            high=1,
        ),
        lines(
            "Left on file systems over time",
            "Below 5 %, or below 25 % and full within a day at the present pace, FilesystemFilling fires.",
            RATIO,
            query(f"node_mountpoint:filesystem_avail:ratio{{{ON}}}", "{{instance}} {{mountpoint}}"),
            limits=((0.05, RED),),
            high=1,
        ),
    ]


def _network() -> list[Panel]:
    return [
        lines(
            "Received and sent",
            "By interface; sent is below the line.",
            BYTES_PER_SECOND,
            query(f"rate(host_network_receive_bytes_total{{{ON}}}{RATE})", "{{instance}} {{device}} received"),
            query(f"-rate(host_network_transmit_bytes_total{{{ON}}}{RATE})", "{{instance}} {{device}} sent"),
            low=None,
        ),
        lines(
            "Errors and drops",
            "Packets a second that were damaged or thrown away, by interface.",
            "pps",
            query(
                f"rate(host_network_receive_errors_total{{{ON}}}{RATE})"
                f" + rate(host_network_transmit_errors_total{{{ON}}}{RATE})",
                "{{instance}} {{device}} errors",
            ),
            query(
                f"rate(host_network_receive_drops_total{{{ON}}}{RATE})"
                f" + rate(host_network_transmit_drops_total{{{ON}}}{RATE})",
                "{{instance}} {{device}} drops",
            ),
        ),
    ]


def _cgroup() -> list[Panel]:
    return [
        lines(
            "CPU throttled",
            "Time in which the exporter's own cgroup wanted CPU and was not allowed it; 1 is all of the time. "
            "n/a: no limit.",
            RATIO,
            query(f"rate(host_cgroup_cpu_throttled_seconds_total{{{ON}}}{RATE})", "{{instance}}"),
            span=8,
        ),
        lines(
            "Memory of the cgroup",
            "In use, and its limit where it has one.",
            BYTES,
            query(f"host_cgroup_memory_usage_bytes{{{ON}}}", "{{instance}} in use"),
            query(f"host_cgroup_memory_limit_bytes{{{ON}}}", "{{instance}} limit"),
            span=8,
        ),
        lines(
            "Killed for want of memory",
            "Processes of the cgroup that the kernel ended, within each interval.",
            COUNT,
            query(f"increase(host_cgroup_oom_kills_total{{{ON}}}{RATE})", "{{instance}}"),
            span=8,
        ),
    ]
