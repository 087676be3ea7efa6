"""What the machine's TCP and UDP count, and the table of the connections that its firewall follows."""

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge
from exporters.host.files import KernelFile

_SNMP = "/proc/net/snmp"
ESTABLISHED = Gauge("host_tcp_established", "TCP connections that are open.", (), _SNMP)
RETRANSMITS = Counter("host_tcp_retransmits", "TCP segments sent again because nobody confirmed them.", (), _SNMP)
SEGMENTS = Counter("host_tcp_segments", "TCP segments received and sent.", ("direction",), _SNMP)
OPENS = Counter(
    "host_tcp_opens", "TCP connections begun by this machine (active) and by others (passive).", ("side",), _SNMP
)
FAILED_OPENS = Counter("host_tcp_failed_opens", "TCP connections that were refused or not answered.", (), _SNMP)
BROKEN = Counter("host_tcp_broken", "Open TCP connections that ended by a reset.", (), _SNMP)
RESETS = Counter("host_tcp_resets_sent", "Resets that this machine sent, for a closed port for example.", (), _SNMP)
TCP_ERRORS = Counter("host_tcp_errors", "TCP segments that came damaged.", (), _SNMP)
DATAGRAMS = Counter("host_udp_datagrams", "UDP datagrams received and sent.", ("direction",), _SNMP)
UDP_ERRORS = Counter(
    "host_udp_errors",
    "UDP datagrams lost: nobody listened (no_port), damaged, or a buffer was full.",
    ("reason",),
    _SNMP,
)
# the protocol, its name of the count, and the label value where the family has a label
_COUNTS: tuple[tuple[Gauge | Counter, str, tuple[tuple[str, str | None], ...]], ...] = (
    (ESTABLISHED, "Tcp", (("CurrEstab", None),)),
    (RETRANSMITS, "Tcp", (("RetransSegs", None),)),
    (SEGMENTS, "Tcp", (("InSegs", "received"), ("OutSegs", "sent"))),
    (OPENS, "Tcp", (("ActiveOpens", "active"), ("PassiveOpens", "passive"))),
    (FAILED_OPENS, "Tcp", (("AttemptFails", None),)),
    (BROKEN, "Tcp", (("EstabResets", None),)),
    (RESETS, "Tcp", (("OutRsts", None),)),
    (TCP_ERRORS, "Tcp", (("InErrs", None),)),
    (DATAGRAMS, "Udp", (("InDatagrams", "received"), ("OutDatagrams", "sent"))),
    (
        UDP_ERRORS,
        "Udp",
        (
            ("NoPorts", "no_port"),
            ("InErrors", "damaged"),
            ("RcvbufErrors", "receive_buffer"),
            ("SndbufErrors", "send_buffer"),
        ),
    ),
)
CONNTRACK = Gauge("host_conntrack_entries", "Connections that the firewall follows.", (), "/proc/sys/net/netfilter")
CONNTRACK_LIMIT = Gauge(
    "host_conntrack_limit", "How many it can follow; beyond, new ones are dropped.", (), "/proc/sys/net/netfilter"
)
FAMILIES: tuple[Family, ...] = (*(family for family, *_ in _COUNTS), CONNTRACK, CONNTRACK_LIMIT)


def protocols(snmp: KernelFile) -> Iterator[Metric]:
    text = snmp.read()
    known = {protocol: protocol_counts(text, protocol) for protocol in ("Tcp", "Udp")}
    for declared, protocol, names in _COUNTS:
        counts = known[protocol]
        family = declared.metric()
        for name, label in names:
            if name in counts:
                family.add_metric(() if label is None else (label,), counts[name])
        yield family


def protocol_counts(snmp: bytes, protocol: str) -> Mapping[str, float]:
    """A protocol has two lines: names, then numbers."""
    start = f"{protocol}:".encode()
    lines = [line.decode("ascii", "replace").split() for line in snmp.splitlines() if line.startswith(start)]
    return {name: float(number) for name, number in zip(*(line[1:] for line in lines[:2]), strict=False)}


def conntrack(count: KernelFile, limit: KernelFile) -> Iterator[Metric]:
    yield CONNTRACK.of(float(count.read()))
    yield CONNTRACK_LIMIT.of(float(limit.read()))
