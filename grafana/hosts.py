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
        lines(
            "Load and tasks",
            "Load over five minutes; tasks that run or wait for a processor, and those that wait for a disk, now.",
            COUNT,
            query(f"host_load5{{{ON}}}", "{{instance}} load"),
            query(f"host_tasks{{{ON}}}", "{{instance}} {{state}}"),
            span=8,
        ),
        lines(
            "Switches, interrupts, new tasks",
            "A second. Many switches with little work are tasks that wait for each other.",
            "ops",
            query(f"rate(host_context_switches_total{{{ON}}}{RATE})", "{{instance}} switches"),
            query(f"rate(host_interrupts_total{{{ON}}}{RATE})", "{{instance}} interrupts"),
            query(f"rate(host_forks_total{{{ON}}}{RATE})", "{{instance}} new tasks"),
            span=8,
        ),
        lines(
            "Threads and open files",
            "Of the whole machine. n/a: its limit, where there is none but memory.",
            COUNT,
            query(f"host_threads{{{ON}}}", "{{instance}} threads"),
            query(f"host_file_descriptors{{{ON}}}", "{{instance}} open files"),
            query(f"host_file_descriptors_limit{{{ON}}}", "{{instance}} limit of open files"),
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
        lines(
            "What memory holds",
            "By programs, by files (cached, mapped, dirty) and by the kernel, of all chosen machines.",
            BYTES,
            *(
                query(f"sum(host_memory_{part}_bytes{{{ON}}})", part.replace("_", " "))
                for part in (
                    "anonymous",
                    "cached",
                    "mapped",
                    "slab",
                    "page_tables",
                    "unevictable",
                    "dirty",
                    "writeback",
                )
            ),
            span=8,
        ),
        lines(
            "Memory wanted again",
            "Pages a second that were taken back too early (refaults) or had to be read from a disk (major faults): "
            "the work does not fit into memory.",
            "ops",
            query(f"rate(host_memory_refaults_total{{{ON}}}{RATE})", "{{instance}} refaults {{kind}}"),
            query(f"rate(host_memory_major_faults_total{{{ON}}}{RATE})", "{{instance}} major faults"),
            span=8,
        ),
        lines(
            "Swapped, and killed for want of memory",
            "Bytes a second to and from swap; processes that the kernel ended, within each interval.",
            BYTES_PER_SECOND,
            query(f"rate(host_swap_in_bytes_total{{{ON}}}{RATE})", "{{instance}} in"),
            query(f"rate(host_swap_out_bytes_total{{{ON}}}{RATE})", "{{instance}} out"),
            query(f"increase(host_oom_kills_total{{{ON}}}{RATE})", "{{instance}} killed (count)"),
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
        lines(
            "Latency of disks",
            "Mean time of a request that ended, and of a flush (what a database waits for at each commit).",
            "s",
            *(
                query(
                    f"rate(host_disk_{kind}_seconds_total{{{ON}}}{RATE})"
                    f" / (rate(host_disk_{kinds}_total{{{ON}}}{RATE}) > 0)",
                    f"{{{{instance}}}} {{{{device}}}} {kind}",
                )
                for kind, kinds in (("read", "reads"), ("write", "writes"), ("flush", "flushes"))
            ),
            span=8,
        ),
        lines(
            "Requests to disks",
            "A second, by disk.",
            "iops",
            query(f"rate(host_disk_reads_total{{{ON}}}{RATE})", "{{instance}} {{device}} reads"),
            query(f"rate(host_disk_writes_total{{{ON}}}{RATE})", "{{instance}} {{device}} writes"),
            span=8,
        ),
        lines(
            "Requests at once",
            "Mean over each interval, by disk. More than a disk works on together wait in line.",
            COUNT,
            query(f"rate(host_disk_queued_seconds_total{{{ON}}}{RATE})", "{{instance}} {{device}}"),
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
        lines(
            "Files left on file systems",
            "Inodes that are free, of all: without one no file can be made, whatever space there is. n/a: no limit.",
            RATIO,
            query(f"host_filesystem_files_free{{{ON}}} / host_filesystem_files", "{{instance}} {{mountpoint}}"),
            limits=((0.05, RED),),
            high=1,
        ),
        lines(
            "File systems that cannot be written",
            "1: read-only, meant so or after an error of the disk.",
            COUNT,
            query(f"host_filesystem_readonly{{{ON}}}", "{{instance}} {{mountpoint}}"),
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
        lines(
            "TCP that goes wrong",
            "A second: sent again, refused or not answered, broken off while open.",
            "ops",
            query(f"rate(host_tcp_retransmits_total{{{ON}}}{RATE})", "{{instance}} sent again"),
            query(f"rate(host_tcp_failed_opens_total{{{ON}}}{RATE})", "{{instance}} not answered"),
            query(f"rate(host_tcp_broken_total{{{ON}}}{RATE})", "{{instance}} broken"),
            query(f"rate(host_tcp_resets_sent_total{{{ON}}}{RATE})", "{{instance}} resets sent"),
            query(f"sum by (instance) (rate(host_udp_errors_total{{{ON}}}{RATE}))", "{{instance}} UDP lost"),
            span=8,
        ),
        lines(
            "Connections",
            "TCP connections that are open; those begun a second, by this machine (active) and by others (passive).",
            COUNT,
            query(f"host_tcp_established{{{ON}}}", "{{instance}} open"),
            query(f"rate(host_tcp_opens_total{{{ON}}}{RATE})", "{{instance}} {{side}}"),
            span=8,
        ),
        lines(
            "Connections that the firewall follows",
            "Of as many as it can; at 1 new ones are dropped. n/a: it follows none.",
            RATIO,
            query(f"host_conntrack_entries{{{ON}}} / host_conntrack_limit", "{{instance}}"),
            limits=((0.9, RED),),
            high=1,
            span=8,
        ),
    ]


def _cgroup() -> list[Panel]:
    return [
        lines(
            "CPU of the cgroup",
            "CPUs' worth of time it uses, and may use where it has a limit.",
            "suffix: CPUs",
            query(f"rate(host_cgroup_cpu_seconds_total{{{ON}}}{RATE})", "{{instance}} in use"),
            query(f"host_cgroup_cpu_limit{{{ON}}}", "{{instance}} limit"),
            span=8,
        ),
        lines(
            "CPU throttled",
            "Time in which the exporter's own cgroup wanted CPU and was not allowed it; 1 is all of the time. "
            "n/a: no limit.",
            RATIO,
            query(f"rate(host_cgroup_cpu_throttled_seconds_total{{{ON}}}{RATE})", "{{instance}}"),
            span=8,
        ),
        lines(
            "Periods throttled",
            "Of the periods in which it wanted CPU, those in which it was held back. n/a: no limit.",
            RATIO,
            query(
                f"rate(host_cgroup_cpu_throttled_periods_total{{{ON}}}{RATE})"
                f" / (rate(host_cgroup_cpu_periods_total{{{ON}}}{RATE}) > 0)",
                "{{instance}}",
            ),
            high=1,
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
        lines(
            "Tasks of the cgroup",
            "Threads in it, and how many it may have where it has a limit.",
            COUNT,
            query(f"host_cgroup_tasks{{{ON}}}", "{{instance}} threads"),
            query(f"host_cgroup_tasks_limit{{{ON}}}", "{{instance}} limit"),
            span=8,
        ),
    ]
