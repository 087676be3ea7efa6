"""GPUs: the fleet at a glance, then each card: work, memory, power and heat, errors, links, instances and processes."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import board, choice
from grafana.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    GREEN,
    ORANGE,
    RATIO,
    RED,
    YELLOW,
    Column,
    Panel,
    bars,
    lines,
    number,
    query,
    rows,
    states,
)

ON = 'uuid=~"$uuid"'
RATE = "[$__rate_interval]"
WATTS, CELSIUS, HERTZ = "watt", "celsius", "hertz"
YES = {"0": ("no", GREEN), "1": ("yes", RED)}
UP = {"0": ("down", RED), "1": ("up", GREEN)}


def dashboard() -> models.Dashboard:
    """uid tidewise-gpu."""
    return board(
        "gpu",
        "GPUs",
        "Whether cards work, how much of them is used, what holds them back, and what breaks. By uuid.",
        [
            ("Fleet", _fleet()),
            ("Work", _work()),
            ("Memory", _memory()),
            ("Power, heat and clocks", _power()),
            ("Errors", _errors()),
            ("PCIe and NVLink", _links()),
            ("Instances (MIG) and processes", _instances()),
        ],
        variables=[choice("uuid", "Card", "Its uuid, as the driver writes it", "gpu:card:info", "uuid")],
    )


def _fleet() -> list[Panel]:
    return [
        number(
            "Cards",
            "That any exporter shows.",
            COUNT,
            "count(group by (uuid) (gpu:card:info or gpu:up:max))",
            span=2,
            height=5,
        ),
        number(
            "Down",
            "Cards that were there and cannot be read now.",
            COUNT,
            "count(gpu:up:max) - sum(gpu:up:max)",
            limits=((None, GREEN), (1, RED)),
            span=2,
            height=5,
        ),
        number(
            "Idle but taken",
            "Cards with more than a tenth of their memory taken and next to nothing computed.",
            COUNT,
            "count(gpu:memory_used:ratio > 0.1 and on (uuid) ((gpu:sm_active:avg5m or gpu:utilization:avg5m) < 0.01))"
            " or 0 * count(gpu:memory_used:ratio)",
            limits=((None, GREEN), (1, YELLOW)),
            span=2,
            height=5,
        ),
        number(
            "Slowed down",
            "Cards that heat or their supply slowed down within five minutes.",
            COUNT,
            "sum(gpu:throttled:max5m)",
            limits=((None, GREEN), (1, ORANGE)),
            span=2,
            height=5,
        ),
        number("Power", "Of all cards.", WATTS, "sum(max by (uuid) (gpu_power_watts))", span=4, height=5),
        states(
            "Drivers",
            "By exporter: whether NVIDIA's driver can be asked.",
            query("max by (instance) (gpu_driver_up)", "{{instance}}"),
            words=UP,
            span=6,
            height=5,
        ),
        states(
            "Why drivers do not work",
            "On any machine; GpuDriverDown names it. library_not_found: it has no driver.",
            query("max by (reason) (gpu_driver_problem_active)", "{{reason}}"),
            words=YES,
            span=6,
            height=5,
        ),
        rows(
            "Cards",
            "Each card now. A card that its exporter cannot read has nothing but that it is down.",
            [
                Column("uuid", label="uuid", link=("gpu", "This card alone")),
                Column("state", expr=f"gpu:up:max{{{ON}}}", words=UP),
                Column("in use", RATIO, expr=f"gpu:utilization:avg5m{{{ON}}}"),
                Column("multiprocessors", RATIO, expr=f"gpu:sm_active:avg5m{{{ON}}}"),
                Column("memory", RATIO, expr=f"gpu:memory_used:ratio{{{ON}}}", limits=((None, GREEN), (0.95, ORANGE))),
                Column("power", RATIO, expr=f"gpu:power:ratio{{{ON}}}"),
                Column("temperature", CELSIUS, expr=f"gpu:temperature_celsius:max{{{ON}}}"),
                Column("slowed down", expr=f"gpu:throttled:max5m{{{ON}}}", words=YES),
                Column("processes", COUNT, expr=f"max by (uuid) (gpu_processes{{{ON}}})"),
            ],
            key="uuid",
        ),
        states(
            "Why cards are down",
            "lost: it fell off the bus. reset_required: only a reset helps. gone: not listed any more. no_answer: a "
            "call hangs. A row a card and reason.",
            query(f"max by (uuid, reason) (gpu_problem_active{{{ON}}}) == 1", "{{uuid}} {{reason}}"),
            words={"1": ("down", RED)},
            height=6,
        ),
        rows(
            "What they are",
            "Name, place and driver, as its exporter shows them.",
            [
                Column("uuid", label="uuid"),
                Column("name", label="name"),
                Column("index", label="index"),
                Column("PCI", label="pci_bus_id"),
                Column("compute capability", label="compute_capability"),
                Column("driver", label="driver_version"),
                Column("CUDA", label="cuda_version"),
                Column(
                    "shown",
                    expr=f"gpu_info{{{ON}}} * on (instance) group_left (driver_version, cuda_version) gpu_driver_info",
                ),
            ],
            key="uuid",
            span=12,
            height=6,
        ),
    ]


def _work() -> list[Panel]:
    return [
        lines(
            "Time in which a kernel ran",
            "Over five minutes. Near 1 says that the card was not idle, not that it was full.",
            RATIO,
            query(f"gpu:utilization:avg5m{{{ON}}}", "{{uuid}}"),
            high=1,
            span=8,
        ),
        lines(
            "Multiprocessors and tensor cores at work",
            "Over five minutes: how much of the card worked. n/a: the card does not tell.",
            RATIO,
            query(f"gpu:sm_active:avg5m{{{ON}}}", "{{uuid}} multiprocessors"),
            query(f"gpu:tensor_active:avg5m{{{ON}}}", "{{uuid}} tensor cores"),
            high=1,
            span=8,
        ),
        lines(
            "Warps and memory bandwidth",
            "Of what there is room for, as last scraped. Bandwidth near 1: memory is the limit, not arithmetic.",
            RATIO,
            query(f"gpu_sm_occupancy_ratio{{{ON}}}", "{{uuid}} warps"),
            query(f"gpu_dram_active_ratio{{{ON}}}", "{{uuid}} bandwidth"),
            high=1,
            span=8,
        ),
        lines(
            "Now: kernels and activity",
            "The same as last scraped: short bursts are not averaged away.",
            RATIO,
            query(f"gpu_utilization_ratio{{{ON}}}", "{{uuid}} kernels"),
            query(f"gpu_sm_active_ratio{{{ON}}}", "{{uuid}} multiprocessors"),
            query(f"gpu_tensor_active_ratio{{{ON}}}", "{{uuid}} tensor cores"),
            high=1,
        ),
        lines(
            "Memory copies, video encoder and decoder",
            "Share of time in which each worked.",
            RATIO,
            query(f"gpu_memory_utilization_ratio{{{ON}}}", "{{uuid}} memory"),
            query(f"gpu_encoder_utilization_ratio{{{ON}}}", "{{uuid}} encoder"),
            query(f"gpu_decoder_utilization_ratio{{{ON}}}", "{{uuid}} decoder"),
            high=1,
        ),
    ]


def _memory() -> list[Panel]:
    return [
        bars(
            "Memory taken",
            "Of what processes can have, now.",
            RATIO,
            f"sort_desc(gpu:memory_used:ratio{{{ON}}})",
            "{{uuid}}",
            limits=((None, GREEN), (0.8, YELLOW), (0.95, RED)),
            high=1,
        ),
        lines(
            "Memory",
            "What processes have, what is free, what the driver keeps for itself, and all of it.",
            BYTES,
            query(f"gpu_memory_used_bytes{{{ON}}}", "{{uuid}} used"),
            query(f"gpu_memory_free_bytes{{{ON}}}", "{{uuid}} free"),
            query(f"gpu_memory_reserved_bytes{{{ON}}}", "{{uuid}} reserved"),
            query(f"gpu_memory_total_bytes{{{ON}}}", "{{uuid}} total"),
        ),
    ]


def _power() -> list[Panel]:
    return [
        lines(
            "Power",
            "What a card draws, and its limit.",
            WATTS,
            query(f"gpu_power_watts{{{ON}}}", "{{uuid}}"),
            query(f"gpu_power_limit_watts{{{ON}}}", "{{uuid}} limit"),
            query(f"rate(gpu_energy_joules_total{{{ON}}}{RATE})", "{{uuid}} by its energy counter"),
            span=8,
        ),
        lines(
            "Temperature",
            "Of the card and of its memory; from slowdown on it is held back.",
            CELSIUS,
            query(f"gpu_temperature_celsius{{{ON}}}", "{{uuid}} {{sensor}}"),
            query(f"gpu_temperature_limit_celsius{{{ON}}}", "{{uuid}} {{limit}}"),
            span=8,
        ),
        lines(
            "Clocks",
            "Of the parts of the card, as they run now.",
            HERTZ,
            query(f"gpu_clock_hertz{{{ON}}}", "{{uuid}} {{domain}}"),
            span=8,
        ),
        states(
            "Why clocks are held back",
            "idle and sw_power_cap are usual; slowdown by heat or the supply is not. A row a card and reason.",
            query(f"max by (uuid, reason) (gpu_throttle_active{{{ON}}}) == 1", "{{uuid}} {{reason}}"),
            words={"1": ("held back", ORANGE)},
        ),
        lines(
            "Slowed down by heat",
            "Share of five minutes. Above a tenth for ten minutes GpuThermalThrottle fires.",
            RATIO,
            query(f"gpu:thermal_throttled:avg5m{{{ON}}}", "{{uuid}}"),
            limits=((0.1, RED),),
            high=1,
        ),
    ]


def _errors() -> list[Panel]:
    return [
        states(
            "XIDs within the hour",
            "Numbers of errors that the driver reported. 48 62 64 74 79 95 119 120 call somebody; the others are the "
            "work of applications, or what the card mended.",
            query(f"gpu:xid_errors:bool1h{{{ON}}} == 1", "{{uuid}} XID {{xid}}"),
            words={"1": ("reported", RED)},
            span=8,
        ),
        lines(
            "XIDs",
            "Reported within each interval, by number.",
            COUNT,
            query(f"increase(gpu_xid_errors_total{{{ON}}}{RATE}) > 0", "{{uuid}} XID {{xid}}"),
            span=8,
        ),
        rows(
            "When an XID was last reported",
            "Of each card and number, since its exporter started.",
            [
                Column("uuid", label="uuid"),
                Column("XID", label="xid"),
                Column("last", "dateTimeFromNow", expr=f"1000 * gpu_xid_last_timestamp_seconds{{{ON}}}"),
            ],
            key="uuid",
            span=8,
        ),
        lines(
            "Memory errors",
            "Counted since the driver was loaded (volatile) and ever (aggregate).",
            COUNT,
            query(f"gpu_ecc_errors_total{{{ON}}}", "{{uuid}} {{kind}} {{scope}}"),
            span=8,
        ),
        lines(
            "Memory rows replaced",
            "By spare ones, because of errors of each kind.",
            COUNT,
            query(f"gpu_remapped_rows{{{ON}}}", "{{uuid}} {{cause}}"),
            steps=True,
            span=8,
        ),
        states(
            "Memory that wears out",
            "pending: a row is replaced at the next reset. failure: it could not be; return the card.",
            query(f"max by (uuid) (gpu_row_remap_pending{{{ON}}})", "{{uuid}} pending"),
            query(f"gpu:row_remap_failure:max{{{ON}}}", "{{uuid}} failure"),
            query(f"max by (uuid) (gpu:ecc_uncorrected:increase1h{{{ON}}} > bool 0)", "{{uuid}} uncorrected, 1 h"),
            words=YES,
            span=8,
        ),
    ]


def _links() -> list[Panel]:
    return [
        lines(
            "PCIe",
            "Received and sent by each card; sent is below the line.",
            BYTES_PER_SECOND,
            query(f"gpu_pcie_rx_bytes_per_second{{{ON}}}", "{{uuid}} received"),
            query(f"-gpu_pcie_tx_bytes_per_second{{{ON}}}", "{{uuid}} sent"),
            low=None,
            span=8,
        ),
        lines(
            "PCIe link",
            "Generation and lanes now; an idle card lowers the generation. Fewer lanes than the slot has: its seat.",
            COUNT,
            query(f"gpu_pcie_link_generation{{{ON}}}", "{{uuid}} generation"),
            query(f"gpu_pcie_link_width{{{ON}}}", "{{uuid}} lanes"),
            steps=True,
            span=8,
        ),
        lines(
            "Sent again over PCIe",
            "Packets within each interval.",
            COUNT,
            query(f"increase(gpu_pcie_replays_total{{{ON}}}{RATE})", "{{uuid}}"),
            span=8,
        ),
        lines(
            "NVLink",
            "Received and sent over all links; sent is below the line. n/a: no links.",
            BYTES_PER_SECOND,
            query(f"rate(gpu_nvlink_rx_bytes_total{{{ON}}}{RATE})", "{{uuid}} received"),
            query(f"-rate(gpu_nvlink_tx_bytes_total{{{ON}}}{RATE})", "{{uuid}} sent"),
            low=None,
            span=8,
        ),
        states(
            "NVLinks",
            "Whether each link is active.",
            query(f"gpu_nvlink_up{{{ON}}}", "{{uuid}} link {{link}}"),
            words={"0": ("inactive", "#808080"), "1": ("active", GREEN)},
            span=8,
        ),
        lines(
            "NVLink errors",
            "Within each interval, of all links.",
            COUNT,
            query(f"increase(gpu_nvlink_errors_total{{{ON}}}{RATE})", "{{uuid}} {{kind}}"),
            span=8,
        ),
    ]


def _instances() -> list[Panel]:
    return [
        rows(
            "MIG devices",
            "Of cards that are divided. n/a: none is.",
            [
                Column("card", label="uuid"),
                Column("instance", label="gpu_instance"),
                Column("compute instance", label="compute_instance"),
                Column("profile", label="profile"),
                Column("device", label="mig_uuid"),
                Column("there", expr=f"gpu_mig_info{{{ON}}}", words={"1": ("yes", GREEN)}),
            ],
            key="uuid",
            span=8,
        ),
        lines(
            "Memory of MIG instances",
            "Used, free, and all of it.",
            BYTES,
            query(f"gpu_mig_memory_used_bytes{{{ON}}}", "{{uuid}} {{gpu_instance}} used"),
            query(f"gpu_mig_memory_free_bytes{{{ON}}}", "{{uuid}} {{gpu_instance}} free"),
            query(f"gpu_mig_memory_total_bytes{{{ON}}}", "{{uuid}} {{gpu_instance}} total"),
            span=8,
        ),
        lines(
            "Memory by process",
            "Only where exporters.gpu.processes is switched on; the pod where its cgroup tells.",
            BYTES,
            query(f"gpu_process_memory_bytes{{{ON}}}", "{{uuid}} {{process}} {{pid}} {{namespace}} {{pod}}"),
            stacked=True,
            span=8,
        ),
    ]
