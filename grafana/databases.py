"""Databases: whether they answer, how full they are, and who waits. Rows of the dashboard `workflows`."""

from grafana.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    GREEN,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Panel,
    lines,
    query,
    rows,
    states,
)

RATE = "[$__rate_interval]"
FULL = ((None, GREEN), (0.7, YELLOW), (0.85, RED))


def sections() -> list[tuple[str, list[Panel]]]:
    """(heading, panels), each row of panels as wide as the dashboard."""
    return [
        ("Databases", _now()),
        ("Connections and waiting", _connections()),
        ("What databases do", _work()),
        ("Replication, memory and disk", _stores()),
    ]


def _largest(expr: str) -> str:
    """One series a database, so that a table has one row for it."""
    return f"max by (database) ({expr})"


def _now() -> list[Panel]:
    return [
        rows(
            "Databases now",
            "In use: connections, of those that ordinary users can have; memory, of its limit. Behind: of the replica "
            "that is furthest behind, or the replica itself. n/a: the system does not have it, or it cannot be told.",
            [
                Column("Database", label="database"),
                Column(
                    "Answers",
                    expr="min by (database) (database:up:min)",
                    words={"1": ("yes", GREEN), "0": ("no", RED)},
                ),
                Column("Smallest question", SECONDS, _largest("database:ping_seconds:max")),
                Column("Connections in use", RATIO, _largest("database:connections:ratio"), limits=FULL),
                Column("Oldest transaction", SECONDS, _largest("database:oldest_transaction_seconds:max")),
                Column("Behind", SECONDS, _largest("database:replication_lag_seconds:max")),
                Column("Memory in use", RATIO, _largest("database:memory_used:ratio"), limits=FULL),
                Column("On disk", BYTES, _largest("database:size_bytes:sum")),
            ],
            key="database",
        ),
        states(
            "Answers",
            "Empty: nobody tried, or the exporter is away. After a minute of no, DatabaseDown fires.",
            query("database:up:min", "{{database}} ({{system}})"),
            words={"0": ("no", RED), "1": ("yes", GREEN)},
        ),
        states(
            "Why not",
            "The reason that the exporter found. connections_exhausted: there is no room for one more client; "
            "credentials, no_database, tls: it answers, but not to the exporter.",
            query("database_unreachable", "{{database}}: {{reason}}"),
            words={"1": ("unreachable", RED)},
        ),
    ]


def _connections() -> list[Panel]:
    return [
        lines(
            "Connections in use",
            "Of those that ordinary users can have. Above 85 % for five minutes, DatabaseConnectionsHigh fires.",
            RATIO,
            query("database:connections:ratio", "{{database}}"),
            limits=((0.85, RED),),
            high=1,
            span=8,
        ),
        lines(
            "Connections by state",
            "idle in transaction: a client that holds its transaction open and does nothing. hidden: the exporter's "
            "user may not see it.",
            COUNT,
            query("sum by (database, state) (database_connections)", "{{database}} {{state}}"),
            span=8,
        ),
        lines(
            "Smallest question",
            "How long SELECT 1, PING, or reading a SQLite schema took.",
            SECONDS,
            query("database:ping_seconds:max", "{{database}}"),
            span=8,
        ),
        lines(
            "Oldest transaction",
            "Since it began, idle ones included. While it is open, dead rows cannot be vacuumed.",
            SECONDS,
            query("database:oldest_transaction_seconds:max", "{{database}}"),
            span=8,
        ),
        lines(
            "Locks waited for",
            "Sessions that stand in line for a lock now.",
            COUNT,
            query("max by (database) (database_locks_waiting)", "{{database}}"),
            span=8,
        ),
        lines(
            "Deadlocks and rollbacks",
            "A second: deadlocks that were broken up, and transactions that were rolled back.",
            "ops",
            query(f"sum by (database) (rate(database_deadlocks_total{RATE}))", "{{database}} deadlocks"),
            query(
                f'sum by (database) (rate(database_transactions_total{{result="rollback"}}{RATE}))',
                "{{database}} rollbacks",
            ),
            span=8,
        ),
    ]


def _work() -> list[Panel]:
    return [
        lines(
            "Transactions and commands",
            "Transactions a second that were committed; commands of a Redis.",
            "ops",
            query(
                f'sum by (database) (rate(database_transactions_total{{result="commit"}}{RATE}))',
                "{{database}} commits",
            ),
            query(f"sum by (database) (rate(database_commands_total{RATE}))", "{{database}} commands"),
            span=8,
        ),
        lines(
            "Found in memory",
            "PostgreSQL: blocks that were in its own cache, of those wanted. Redis: keys that were there, of those "
            "asked for. n/a: nothing was wanted.",
            RATIO,
            query(
                f'sum by (database) (rate(database_blocks_total{{from="hit"}}{RATE}))'
                f" / (sum by (database) (rate(database_blocks_total{RATE})) > 0)",
                "{{database}} blocks",
            ),
            query(
                f'sum by (database) (rate(database_lookups_total{{result="hit"}}{RATE}))'
                f" / (sum by (database) (rate(database_lookups_total{RATE})) > 0)",
                "{{database}} keys",
            ),
            high=1,
            span=8,
        ),
        lines(
            "Temporary files",
            "Written by queries that did not fit into memory.",
            BYTES_PER_SECOND,
            query(f"sum by (database) (rate(database_temp_bytes_total{RATE}))", "{{database}}"),
            span=8,
        ),
        lines(
            "Statements with the most time",
            "Seconds of work a second, by queryid; pg_stat_statements has the text to it. n/a: the extension is not "
            "installed.",
            "suffix: s/s",
            query(
                f"topk(10, sum by (database, queryid) (rate(database_statement_seconds_total{RATE})))",
                "{{database}} {{queryid}}",
            ),
        ),
        lines(
            "Time a call takes",
            "Mean, of the same statements.",
            SECONDS,
            query(
                f"sum by (database, queryid) (rate(database_statement_seconds_total{RATE}))"
                f" / (sum by (database, queryid) (rate(database_statement_calls_total{RATE})) > 0)",
                "{{database}} {{queryid}}",
            ),
        ),
    ]


def _stores() -> list[Panel]:
    return [
        lines(
            "Behind",
            "Of the replica that is furthest behind, as its primary or it itself says.",
            SECONDS,
            query("database:replication_lag_seconds:max", "{{database}}"),
            span=8,
        ),
        lines(
            "Memory in use",
            "Of its limit. n/a: it has none. Evicted keys are data that somebody may miss.",
            RATIO,
            query("database:memory_used:ratio", "{{database}}"),
            limits=((0.85, ORANGE),),
            high=1,
            span=8,
        ),
        lines(
            "Keys that went",
            "Evicted for want of memory, and expired, a second.",
            "ops",
            query(f"sum by (database) (rate(database_evicted_keys_total{RATE}))", "{{database}} evicted"),
            query(f"sum by (database) (rate(database_expired_keys_total{RATE}))", "{{database}} expired"),
            span=8,
        ),
        lines(
            "On disk",
            "Without PostgreSQL's templates; of SQLite with its write-ahead log.",
            BYTES,
            query("database:size_bytes:sum", "{{database}}"),
            span=8,
        ),
        lines(
            "Dead rows",
            "Of the connected database, of all its rows: what vacuum has still to clear away.",
            RATIO,
            query(
                'max by (database) (database_tuples{state="dead"}) / (sum by (database) (database_tuples) > 0)',
                "{{database}}",
            ),
            high=1,
            span=8,
        ),
        states(
            "Written to disk",
            "Whether a Redis's last snapshot and its append-only file went well.",
            query("database_persistence_ok", "{{database}} {{kind}}"),
            words={"0": ("failed", RED), "1": ("well", GREEN)},
            span=8,
        ),
    ]
