"""Every gpu_ metric, and the words of their labels. `uuid` names the card; everything else about it is in gpu_info."""

from exporters.families import Counter, Family, Gauge

# Why the driver cannot be asked, and why a card cannot. Each is on the page as 0 or 1.
DRIVER_PROBLEMS = ("library_not_found", "driver_not_loaded", "version_mismatch", "no_answer", "error")
CARD_PROBLEMS = ("lost", "reset_required", "gone", "no_answer", "error")

# Bit of nvmlClocksEventReasons -> reason.
THROTTLE_REASONS = {
    0x001: "idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}

# The card or its memory is broken, or only a reset brings it back; all others are the work of applications, or tell
# of what the card mended itself.
CRITICAL_XIDS = (48, 62, 64, 74, 79, 95, 119, 120)

_CARD = ("uuid",)

DRIVER_UP = Gauge("gpu_driver_up", "1: NVIDIA's management library answers. 0: it does not.", (), "nvmlInit")
DRIVER_PROBLEM = Gauge(
    "gpu_driver_problem_active", "1 for the reason why the driver cannot be asked, 0 for the others.", ("reason",),
    "the error of nvmlInit",
)  # fmt: skip
DRIVER_INFO = Gauge(
    "gpu_driver_info", "1; versions of the driver and of the CUDA that it carries.", ("driver_version", "cuda_version"),
    "nvmlSystemGet…Version",
)  # fmt: skip
UP = Gauge("gpu_up", "1: the card answers. 0: gpu_problem_active says why not.", _CARD, "NVML")
PROBLEM = Gauge(
    "gpu_problem_active", "1 for the reason why the card cannot be read, 0 for the others.", (*_CARD, "reason"),
    "errors of NVML",
)  # fmt: skip
INFO = Gauge(
    "gpu_info", "1; what the card is called, and where it is.",
    (*_CARD, "name", "index", "pci_bus_id", "compute_capability"), "nvmlDeviceGet…",
)  # fmt: skip
UTILIZATION = Gauge(
    "gpu_utilization_ratio", "Share of time in which any kernel ran; says nothing of how much of the card it used.",
    _CARD, "nvmlDeviceGetUtilizationRates",
)  # fmt: skip
MEMORY_UTILIZATION = Gauge(
    "gpu_memory_utilization_ratio", "Share of time in which memory was read or written.", _CARD,
    "nvmlDeviceGetUtilizationRates",
)  # fmt: skip
ENCODER_UTILIZATION = Gauge(
    "gpu_encoder_utilization_ratio", "Share of time in which the video encoder worked.", _CARD,
    "nvmlDeviceGetEncoderUtilization",
)  # fmt: skip
DECODER_UTILIZATION = Gauge(
    "gpu_decoder_utilization_ratio", "Share of time in which the video decoder worked.", _CARD,
    "nvmlDeviceGetDecoderUtilization",
)  # fmt: skip
SM_ACTIVE = Gauge(
    "gpu_sm_active_ratio", "Streaming multiprocessors that were busy, since the scrape before.", _CARD,
    "GPM, Hopper and later",
)  # fmt: skip
SM_OCCUPANCY = Gauge(
    "gpu_sm_occupancy_ratio", "Warps that were active, of those there is room for, since the scrape before.", _CARD,
    "GPM, Hopper and later",
)  # fmt: skip
TENSOR_ACTIVE = Gauge(
    "gpu_tensor_active_ratio", "Share of time in which tensor cores worked, since the scrape before.", _CARD,
    "GPM, Hopper and later",
)  # fmt: skip
DRAM_ACTIVE = Gauge(
    "gpu_dram_active_ratio", "Memory bandwidth in use, of all there is, since the scrape before.", _CARD,
    "GPM, Hopper and later",
)  # fmt: skip
MEMORY_TOTAL = Gauge("gpu_memory_total_bytes", "Memory of the card.", _CARD, "nvmlDeviceGetMemoryInfo")
MEMORY_USED = Gauge(
    "gpu_memory_used_bytes", "Memory that processes have; what the driver reserves is in it where an old driver cannot "
    "tell it apart.", _CARD, "nvmlDeviceGetMemoryInfo",
)  # fmt: skip
MEMORY_FREE = Gauge("gpu_memory_free_bytes", "Memory that nobody has.", _CARD, "nvmlDeviceGetMemoryInfo")
MEMORY_RESERVED = Gauge(
    "gpu_memory_reserved_bytes", "Memory that the driver keeps for itself.", _CARD, "nvmlDeviceGetMemoryInfo_v2"
)
POWER = Gauge("gpu_power_watts", "Power that the card draws.", _CARD, "nvmlDeviceGetPowerUsage")
POWER_LIMIT = Gauge(
    "gpu_power_limit_watts", "Power beyond which the card slows down.", _CARD, "nvmlDeviceGetEnforcedPowerLimit"
)
ENERGY = Counter(
    "gpu_energy_joules", "Energy used since the driver was loaded.", _CARD, "NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
)
TEMPERATURE = Gauge(
    "gpu_temperature_celsius", "Temperature by sensor: gpu, memory.", (*_CARD, "sensor"),
    "nvmlDeviceGetTemperature, NVML_FI_DEV_MEMORY_TEMP",
)  # fmt: skip
TEMPERATURE_LIMIT = Gauge(
    "gpu_temperature_limit_celsius", "Temperature of the card from which on it slows down, or shuts down.",
    (*_CARD, "limit"), "nvmlDeviceGetTemperatureThreshold",
)  # fmt: skip
CLOCK = Gauge(
    "gpu_clock_hertz", "Clock by domain: graphics, sm, memory, video.", (*_CARD, "domain"), "nvmlDeviceGetClockInfo"
)
THROTTLE = Gauge(
    "gpu_throttle_active", "1 where the clocks are held back for this reason, 0 where they are not.",
    (*_CARD, "reason"), "nvmlDeviceGetCurrentClocksEventReasons",
)  # fmt: skip
ECC_ERRORS = Counter(
    "gpu_ecc_errors", "Memory errors by kind; volatile: since the driver was loaded, aggregate: ever.",
    (*_CARD, "kind", "scope"), "NVML_FI_DEV_ECC_…_TOTAL",
)  # fmt: skip
REMAPPED_ROWS = Gauge(
    "gpu_remapped_rows", "Rows of memory that were replaced by spare ones, by what made it necessary.",
    (*_CARD, "cause"), "NVML_FI_DEV_REMAPPED_…",
)  # fmt: skip
ROW_REMAP_PENDING = Gauge(
    "gpu_row_remap_pending", "1: a row will be replaced at the next reset.", _CARD, "NVML_FI_DEV_REMAPPED_PENDING"
)
ROW_REMAP_FAILURE = Gauge(
    "gpu_row_remap_failure", "1: a row could not be replaced; the card is to be replaced.", _CARD,
    "NVML_FI_DEV_REMAPPED_FAILURE",
)  # fmt: skip
XID_ERRORS = Counter(
    "gpu_xid_errors", "Errors that the driver reported by number (XID), since the exporter started.", (*_CARD, "xid"),
    "nvmlEventSetWait",
)  # fmt: skip
XID_LAST = Gauge(
    "gpu_xid_last_timestamp_seconds", "When the exporter heard of the last XID with this number.", (*_CARD, "xid"),
    "nvmlEventSetWait",
)  # fmt: skip
PCIE_TX = Gauge(
    "gpu_pcie_tx_bytes_per_second", "Sent by the card over PCIe.", _CARD, "GPM, else nvmlDeviceGetPcieThroughput"
)
PCIE_RX = Gauge(
    "gpu_pcie_rx_bytes_per_second", "Received by the card over PCIe.", _CARD, "GPM, else nvmlDeviceGetPcieThroughput"
)
PCIE_GENERATION = Gauge(
    "gpu_pcie_link_generation", "PCIe generation of the link now; an idle card may lower it.", _CARD,
    "nvmlDeviceGetCurrPcieLinkGeneration",
)  # fmt: skip
PCIE_WIDTH = Gauge("gpu_pcie_link_width", "PCIe lanes in use now.", _CARD, "nvmlDeviceGetCurrPcieLinkWidth")
PCIE_REPLAYS = Counter("gpu_pcie_replays", "PCIe packets sent again.", _CARD, "NVML_FI_DEV_PCIE_REPLAY_COUNTER")
NVLINK_UP = Gauge("gpu_nvlink_up", "1: the link is active.", (*_CARD, "link"), "nvmlDeviceGetNvLinkState")
NVLINK_ERRORS = Counter(
    "gpu_nvlink_errors", "Errors of all links: crc_flit, crc_data (crc since Hopper), replay, recovery.",
    (*_CARD, "kind"), "NVML_FI_DEV_NVLINK_…_ERROR_COUNT_TOTAL, else NVML_FI_DEV_NVLINK_ERROR_DL_…",
)  # fmt: skip
NVLINK_TX = Counter("gpu_nvlink_tx_bytes", "Data sent over all links.", _CARD, "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX")
NVLINK_RX = Counter(
    "gpu_nvlink_rx_bytes", "Data received over all links.", _CARD, "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX"
)
_SLICE = (*_CARD, "gpu_instance")
MIG_INFO = Gauge(
    "gpu_mig_info", "1; a MIG device of the card and its profile.",
    (*_SLICE, "compute_instance", "mig_uuid", "profile"), "nvmlDeviceGetMigDeviceHandleByIndex",
)  # fmt: skip
MIG_MEMORY_TOTAL = Gauge(
    "gpu_mig_memory_total_bytes", "Memory of a MIG instance; its compute instances share it.", _SLICE,
    "nvmlDeviceGetMemoryInfo",
)  # fmt: skip
MIG_MEMORY_USED = Gauge(
    "gpu_mig_memory_used_bytes", "Memory of a MIG instance that processes have.", _SLICE, "nvmlDeviceGetMemoryInfo"
)
MIG_MEMORY_FREE = Gauge(
    "gpu_mig_memory_free_bytes", "Memory of a MIG instance that nobody has.", _SLICE, "nvmlDeviceGetMemoryInfo"
)
PROCESSES = Gauge(
    "gpu_processes", "Processes that compute or draw on the card.", _CARD, "nvmlDeviceGet…RunningProcesses"
)
PROCESS_MEMORY = Gauge(
    "gpu_process_memory_bytes", "Memory that a process has; only where exporters.gpu.processes is true.",
    (*_CARD, "pid", "process", "namespace", "pod"), "nvmlDeviceGet…RunningProcesses, /proc/PID/cgroup",
)  # fmt: skip

FAMILIES: tuple[Family, ...] = (
    DRIVER_UP, DRIVER_PROBLEM, DRIVER_INFO, UP, PROBLEM, INFO,
    UTILIZATION, MEMORY_UTILIZATION, ENCODER_UTILIZATION, DECODER_UTILIZATION,
    SM_ACTIVE, SM_OCCUPANCY, TENSOR_ACTIVE, DRAM_ACTIVE,
    MEMORY_TOTAL, MEMORY_USED, MEMORY_FREE, MEMORY_RESERVED,
    POWER, POWER_LIMIT, ENERGY, TEMPERATURE, TEMPERATURE_LIMIT, CLOCK, THROTTLE,
    ECC_ERRORS, REMAPPED_ROWS, ROW_REMAP_PENDING, ROW_REMAP_FAILURE, XID_ERRORS, XID_LAST,
    PCIE_TX, PCIE_RX, PCIE_GENERATION, PCIE_WIDTH, PCIE_REPLAYS, NVLINK_UP, NVLINK_ERRORS, NVLINK_TX, NVLINK_RX,
    MIG_INFO, MIG_MEMORY_TOTAL, MIG_MEMORY_USED, MIG_MEMORY_FREE, PROCESSES, PROCESS_MEMORY,
)  # fmt: skip
