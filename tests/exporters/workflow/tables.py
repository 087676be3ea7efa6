"""n8n's tables in the shapes that its migrations leave: an early 1.x and a 2.x, on PostgreSQL and SQLite."""

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

OLD_POSTGRESQL = """
CREATE TABLE {p}workflow_entity (
  id varchar(36) PRIMARY KEY, name varchar(128) NOT NULL, active boolean NOT NULL, nodes json NOT NULL,
  connections json NOT NULL, "createdAt" timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  "updatedAt" timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), settings json, "staticData" json,
  "triggerCount" integer NOT NULL DEFAULT 0);
CREATE TABLE {p}execution_entity (
  id serial PRIMARY KEY, finished boolean NOT NULL, mode varchar NOT NULL, "retryOf" varchar,
  "retrySuccessId" varchar, "startedAt" timestamptz(3) NOT NULL, "stoppedAt" timestamptz(3),
  "waitTill" timestamptz(3), status varchar, "workflowId" varchar(36) NOT NULL);
CREATE INDEX ON {p}execution_entity ("stoppedAt");
CREATE TABLE {p}workflow_statistics (
  count integer DEFAULT 0, "latestEvent" timestamptz(3), name varchar(128) NOT NULL, "workflowId" varchar(36),
  PRIMARY KEY ("workflowId", name));
"""
NEW_POSTGRESQL = """
CREATE TABLE {p}workflow_entity (
  id varchar(36) PRIMARY KEY, name varchar(128) NOT NULL, description text, active boolean NOT NULL,
  "isArchived" boolean NOT NULL DEFAULT false, nodes json NOT NULL, connections json NOT NULL,
  "createdAt" timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  "updatedAt" timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), settings json, "staticData" json,
  "versionId" char(36), "activeVersionId" varchar(36), "versionCounter" integer NOT NULL DEFAULT 1,
  "triggerCount" integer NOT NULL DEFAULT 0);
CREATE TABLE {p}workflow_history (
  "versionId" varchar(36) PRIMARY KEY, "workflowId" varchar(36) NOT NULL, authors varchar(255) NOT NULL,
  nodes json NOT NULL, connections json NOT NULL);
CREATE TABLE {p}execution_entity (
  id serial PRIMARY KEY, finished boolean NOT NULL, mode varchar NOT NULL, "retryOf" varchar,
  "retrySuccessId" varchar, "startedAt" timestamptz(3), "stoppedAt" timestamptz(3), "waitTill" timestamptz(3),
  status varchar NOT NULL, "workflowId" varchar(36) NOT NULL, "deletedAt" timestamptz(3),
  "createdAt" timestamptz(3) NOT NULL DEFAULT now(), "storedAt" varchar(2) NOT NULL DEFAULT 'db',
  "jsonSizeBytes" bigint NOT NULL DEFAULT 0);
CREATE INDEX ON {p}execution_entity ("deletedAt");
CREATE INDEX ON {p}execution_entity ("workflowId", "startedAt") WHERE "startedAt" IS NOT NULL AND "deletedAt" IS NULL;
CREATE INDEX ON {p}execution_entity ("waitTill", status, "deletedAt")
  WHERE "waitTill" IS NOT NULL AND "deletedAt" IS NULL;
CREATE INDEX ON {p}execution_entity ("stoppedAt", status, "deletedAt")
  WHERE "stoppedAt" IS NOT NULL AND "deletedAt" IS NULL;
CREATE INDEX ON {p}execution_entity ("workflowId", status, id) WHERE "deletedAt" IS NULL;
CREATE TABLE {p}workflow_statistics (
  id serial PRIMARY KEY, count bigint DEFAULT 0, "rootCount" bigint DEFAULT 0, "latestEvent" timestamptz(3),
  name varchar(128) NOT NULL, "workflowId" varchar(36), "workflowName" varchar(128));
CREATE UNIQUE INDEX ON {p}workflow_statistics ("workflowId", name);
CREATE TABLE {p}workflow_statistics_delta (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "workflowId" varchar(36) NOT NULL, name varchar(128) NOT NULL,
  "rootCountDelta" smallint NOT NULL, "createdAt" timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "workflowName" varchar(128));
"""
OLD_SQLITE = """
CREATE TABLE "{p}workflow_entity" ("id" varchar(36) PRIMARY KEY NOT NULL, "name" varchar(128) NOT NULL,
  "active" boolean NOT NULL, "nodes" text NOT NULL, "connections" text NOT NULL,
  "createdAt" datetime(3) NOT NULL DEFAULT (STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')),
  "updatedAt" datetime(3) NOT NULL DEFAULT (STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')), "settings" text,
  "staticData" text, "triggerCount" integer NOT NULL DEFAULT 0);
CREATE TABLE "{p}execution_entity" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "workflowId" varchar(36) NOT NULL,
  "finished" boolean NOT NULL, "mode" varchar NOT NULL, "retryOf" varchar, "retrySuccessId" varchar,
  "startedAt" datetime NOT NULL, "stoppedAt" datetime, "waitTill" datetime, "status" varchar);
CREATE TABLE "{p}workflow_statistics" ("count" INTEGER DEFAULT 0, "latestEvent" DATETIME, "name" VARCHAR(128) NOT NULL,
  "workflowId" VARCHAR(36), PRIMARY KEY("workflowId", "name"));
"""
NEW_SQLITE = """
CREATE TABLE "{p}workflow_entity" ("id" varchar(36) PRIMARY KEY NOT NULL, "name" varchar(128) NOT NULL,
  "active" boolean NOT NULL, "isArchived" boolean NOT NULL DEFAULT 0, "nodes" text NOT NULL,
  "connections" text NOT NULL, "createdAt" datetime(3) NOT NULL DEFAULT (STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')),
  "updatedAt" datetime(3) NOT NULL DEFAULT (STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')), "settings" text,
  "staticData" text, "versionId" char(36), "activeVersionId" varchar(36), "triggerCount" integer NOT NULL DEFAULT 0);
CREATE TABLE "{p}workflow_history" ("versionId" varchar(36) PRIMARY KEY NOT NULL, "workflowId" varchar(36) NOT NULL,
  "authors" varchar(255) NOT NULL, "nodes" text NOT NULL, "connections" text NOT NULL);
CREATE TABLE "{p}execution_entity" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "workflowId" varchar(36) NOT NULL,
  "finished" boolean NOT NULL, "mode" varchar NOT NULL, "retryOf" varchar, "retrySuccessId" varchar,
  "startedAt" datetime, "stoppedAt" datetime, "waitTill" datetime, "status" varchar NOT NULL,
  "deletedAt" datetime(3), "createdAt" datetime(3) NOT NULL DEFAULT (STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')),
  "storedAt" varchar(2) NOT NULL DEFAULT 'db', "jsonSizeBytes" bigint NOT NULL DEFAULT 0);
CREATE TABLE "{p}workflow_statistics" ("id" INTEGER PRIMARY KEY AUTOINCREMENT, "count" BIGINT DEFAULT 0,
  "rootCount" BIGINT DEFAULT 0, "latestEvent" DATETIME, "name" VARCHAR(128) NOT NULL, "workflowId" VARCHAR(36),
  "workflowName" VARCHAR(128));
CREATE UNIQUE INDEX "{p}statistics" ON "{p}workflow_statistics" ("workflowId", "name");
"""
SHAPES = {
    ("postgresql", "old"): OLD_POSTGRESQL,
    ("postgresql", "new"): NEW_POSTGRESQL,
    ("sqlite", "old"): OLD_SQLITE,
    ("sqlite", "new"): NEW_SQLITE,
}


def schedule(**rule: object) -> list[dict[str, Any]]:
    """Nodes with one schedule trigger, as n8n stores them."""
    trigger = {
        "parameters": {"rule": {"interval": [rule]}},
        "type": "n8n-nodes-base.scheduleTrigger",
        "typeVersion": 1.2,
        "position": [0, 0],
        "id": "f1c1c3a0-0000-4000-8000-000000000000",
        "name": "Schedule Trigger",
    }
    return [trigger, {"parameters": {}, "type": "n8n-nodes-base.noOp", "typeVersion": 1, "name": "No Operation"}]


class Execute(Protocol):
    def __call__(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]: ...


@dataclass
class Tables:
    """n8n's hand on its database. Times are Unix seconds."""

    execute: Execute
    kind: str
    shape: str
    prefix: str = ""
    source: dict[str, Any] = field(default_factory=dict)  # for the exporter's configuration

    def workflow(
        self, number: str, name: str, *, active: bool = True, nodes: object = (), changed: float = 1_700_000_000.0
    ) -> None:
        self._insert(
            "workflow_entity",
            id=number,
            name=name,
            active=active,
            nodes=json.dumps(nodes),
            connections="{}",
            updatedAt=self.time(changed),
        )

    def start(self, workflow: str, at: float, *, mode: str = "trigger", status: str = "running") -> int:
        """An execution begins; its number."""
        return self._insert(
            "execution_entity",
            workflowId=workflow,
            finished=False,
            mode=mode,
            status=status,
            startedAt=self.time(at),
        )

    def end(self, number: int, at: float, status: str = "success") -> None:
        """It ends, without a word in the statistics."""
        self._run(
            f'UPDATE {self.table("execution_entity")} SET finished = ?, status = ?, "stoppedAt" = ? WHERE id = ?',
            status == "success",
            status,
            self.time(at),
            number,
        )

    def count(self, workflow: str, name: str, at: float, times: int = 1) -> None:
        """n8n's statistics, such as production_success."""
        table = self.table("workflow_statistics")
        self._run(
            f'INSERT INTO {table} ("workflowId", name, count, "latestEvent") VALUES (?, ?, ?, ?) '
            f'ON CONFLICT ("workflowId", name) DO UPDATE SET count = {table}.count + excluded.count, '
            '"latestEvent" = excluded."latestEvent"',
            workflow,
            name,
            times,
            self.time(at),
        )

    def table(self, name: str) -> str:
        return f'"{self.prefix}{name}"'

    def time(self, at: float) -> object:
        moment = datetime.fromtimestamp(at, UTC)
        if self.kind == "postgresql":
            return moment
        return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"

    def _insert(self, table: str, **values: object) -> int:
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        sql = f"INSERT INTO {self.table(table)} ({names}) VALUES ({marks}) RETURNING id"
        found = self._run(sql, *values.values())[0][0]
        return int(found) if table == "execution_entity" else 0

    def _run(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.execute(sql if self.kind == "sqlite" else sql.replace("?", "%s"), parameters)


def on_sqlite(path: Path, shape: str, prefix: str = "") -> Tables:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SHAPES["sqlite", shape].replace("{p}", prefix))

    def execute(sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return db.execute(sql, parameters).fetchall()

    return Tables(execute, "sqlite", shape, prefix, {"sqlite": str(path), "table_prefix": prefix})


def on_postgresql(dsn: str, shape: str, prefix: str = "") -> Tables:
    import psycopg

    db = psycopg.connect(dsn, autocommit=True)
    db.execute(SHAPES["postgresql", shape].replace("{p}", prefix))

    def execute(sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        cursor = db.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []

    return Tables(execute, "postgresql", shape, prefix, {"postgresql": {"url": dsn}, "table_prefix": prefix})
