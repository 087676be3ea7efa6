"""What every exporter process says of itself, whatever it exports: declared here, published by the chassis."""

from exporters.families import Counter, Family, Gauge
from exporters.labels import REFUSED

_SELF = "the exporter itself"
_PROCESS = "/proc/self, where the process runs"

DEMO = Gauge(
    "tidewise_exporter_demo", "1: every value of the exporters on this page is made up. Absent: none is.", (), _SELF
)

SUCCESS = Gauge(
    "tidewise_exporter_collector_success",
    "1: the collector read everything in this scrape. 0: what it could not read is missing.",
    ("collector",),
    _SELF,
)
DURATION = Gauge(
    "tidewise_exporter_collector_duration_seconds",
    "How long the collector took; for one that hangs, how long it has been hanging.",
    ("collector",),
    _SELF,
)
LAST_SUCCESS = Gauge(
    "tidewise_exporter_collector_last_success_timestamp_seconds",
    "Unix time of the collector's last complete read; missing until there is one.",
    ("collector",),
    _SELF,
)
FAMILIES: tuple[Family, ...] = (
    SUCCESS,
    DURATION,
    LAST_SUCCESS,
    REFUSED,
    DEMO,
    Counter(
        "tidewise_web_refused",
        "Requests and connections turned away: too many at once, wrong password, failed TLS handshake.",
        ("reason",),
        _SELF,
    ),
    Gauge(
        "tidewise_web_config_reload_success",
        "1: the web configuration in force is that of its files. 0: they became wrong, an older one holds.",
        (),
        _SELF,
    ),
    Gauge(
        "tidewise_build_info",
        "What runs here: version of Tidewise and of Python, name of the process.",
        ("process", "python", "version"),
        _SELF,
    ),
    Counter("process_cpu_seconds", "Total user and system CPU time spent in seconds.", (), _PROCESS),
    Gauge("process_resident_memory_bytes", "Resident memory size in bytes.", (), _PROCESS),
    Gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", (), _PROCESS),
    Gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", (), _PROCESS),
    Gauge("process_open_fds", "Number of open file descriptors.", (), _PROCESS),
    Gauge("process_max_fds", "Maximum number of open file descriptors.", (), _PROCESS),
)
