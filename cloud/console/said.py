"""What the core wrote down in English while nobody was there to read it, said in Chinese to whoever reads it now.

A rollout's reason is kept in the database and read by programs as well, so it has one wording; a sentence not known
here (a gateway's own) is shown as it came.
"""

from __future__ import annotations

import re

from cloud.console.words import Words
from protocols.core.errors import CityBrainError

_KNOWN = (
    (r"waits for gateways that are offline", "等待离线的网关上线"),
    (r"wave (\d+): fewer than ([\d.]+) % have it", r"第 \1 批：生效的网关不足 \2%"),
    (r"wave (\d+): (\d+) of (\d+) in error, above ([\d.]+) %", r"第 \1 批：\3 台中 \2 台出错，超过 \4%"),
    (r"no outcome in time; it is offline", "超时无结果，网关离线"),
    (r"no outcome in time", "超时无结果"),
    (r"version (\d+) is wanted by now", r"期望配置已改为版本 \1"),
)


def refusal(words: Words, error: CityBrainError) -> str:
    """What is told to who asked for it: in his language as far as somebody has written it, else the reason's name and
    then the details."""
    text, reason = str(error), str(getattr(error, "reason", ""))
    if not words.zh:
        return text
    named = words.order_code(reason)
    return str(getattr(error, "zh", "")) or (f"{named}：{text}" if named != reason else said(words, text))


def said(words: Words, text: str) -> str:
    if words.zh:
        for pattern, chinese in _KNOWN:
            if found := re.fullmatch(pattern, text):
                return found.expand(chinese)
    return text
