"""What PostgreSQL is asked. Each works on 13 to 18; what was renamed in between is asked by its version."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import sql

BASICS = """
SELECT current_setting('server_version'), current_user::text, pg_has_role('pg_read_all_stats', 'USAGE'),
       pg_is_in_recovery(),
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0)
"""

# Sessions of clients; those that we may not look at have only their database. Our own has no transaction to speak of.
ACTIVITY = """
SELECT state, count(*),
       max(extract(epoch FROM clock_timestamp() - xact_start)) FILTER (WHERE pid <> pg_backend_pid())::float8
FROM pg_stat_activity
WHERE backend_type = 'client backend' OR (backend_type IS NULL AND datid IS NOT NULL)
GROUP BY state
"""

LOCKS = "SELECT count(*) FROM pg_locks WHERE NOT granted"

_DATABASES = "d.datallowconn AND NOT d.datistemplate"
DATABASES = f"""
SELECT d.datname, s.xact_commit, s.xact_rollback, s.blks_hit, s.blks_read, s.temp_bytes, s.deadlocks,
       age(d.datfrozenxid)
FROM pg_database d JOIN pg_stat_database s ON s.datid = d.oid
WHERE {_DATABASES} ORDER BY d.oid
"""  # noqa: S608 - a constant

SIZES = f"""
SELECT d.datname, CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') OR has_database_privilege(d.oid, 'CONNECT')
                       THEN pg_database_size(d.oid) END
FROM pg_database d WHERE {_DATABASES} ORDER BY d.oid
"""  # noqa: S608 - a constant

TUPLES = """
SELECT current_database()::text, coalesce(sum(n_live_tup), 0)::float8, coalesce(sum(n_dead_tup), 0)::float8
FROM pg_stat_user_tables
"""

# `walreceiver` is what a replica calls itself that was given no name. A base backup is no replica.
REPLICATION = """
SELECT coalesce(nullif(nullif(application_name, ''), 'walreceiver'), host(client_addr), 'local'),
       extract(epoch FROM replay_lag)::float8,
       pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, replay_lsn
       )::float8
FROM pg_stat_replication WHERE state <> 'backup'
"""

REPLICA = """
SELECT pg_last_wal_receive_lsn() IS NOT NULL,
       coalesce(pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn(), false),
       coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),
       coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::float8,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8
"""

STATEMENTS_EXTENSION = """
SELECT n.nspname, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements'
"""


def statements(schema: str, version: str, most: int) -> "sql.Composed":
    """The costliest statements, of all users and databases. Until 1.7 of the extension their time was `total_time`.

    The function is asked without their texts: the view would have the server read a file of up to gigabytes each time.
    """
    from psycopg import sql

    number = tuple(int(part) for part in version.split(".") if part.isdigit())
    return sql.SQL(
        "SELECT queryid::text, sum(calls)::float8, sum({time})::float8 / 1000, sum(rows)::float8 FROM {all}(false) "
        "WHERE queryid IS NOT NULL GROUP BY queryid ORDER BY 3 DESC LIMIT {most}"
    ).format(
        time=sql.Identifier("total_exec_time" if number >= (1, 8) else "total_time"),
        most=sql.Literal(most),
        all=sql.Identifier(schema, "pg_stat_statements"),
    )
