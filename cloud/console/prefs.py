"""What an operator has chosen for the console: theme and sound, kept with the core so that any desk looks the same."""

from __future__ import annotations

from typing import Literal

import msgspec
from psycopg.types.json import Jsonb

from cloud.query.pool import Pool


class Prefs(msgspec.Struct, frozen=True):
    theme: Literal["dark", "light"] = "dark"
    muted: bool = False


def _name(operator: str) -> str:
    return f"console.{operator}"


async def load(pool: Pool, operator: str) -> Prefs:
    async with pool.connection() as conn:
        row = await (await conn.execute("select value from setting where name = %s", [_name(operator)])).fetchone()
    try:
        return msgspec.convert(row[0], Prefs) if row else Prefs()
    except msgspec.ValidationError:
        return Prefs()  # written by another version; the defaults will do


async def save(pool: Pool, operator: str, prefs: Prefs) -> None:
    async with pool.connection() as conn:
        await conn.execute(
            "insert into setting (name, value) values (%s, %s) on conflict (name) do update set value = excluded.value",
            [_name(operator), Jsonb(msgspec.to_builtins(prefs))],
        )
