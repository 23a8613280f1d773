"""The label for the box: QR code, code in letters, names in Chinese and English; one page of HTML that prints alone."""

from __future__ import annotations

import html
import io

import segno

from cloud.identity.claims import Made
from cloud.identity.codes import label_text


def qr_svg(text: str) -> str:
    """An SVG picture, error correction M."""
    out = io.BytesIO()
    segno.make(text, error="m").save(out, kind="svg", scale=4, border=2, xmldecl=False, svgns=True)
    return out.getvalue().decode()


def qr_terminal(text: str) -> str:
    """The same for a terminal, two rows a line."""
    out = io.StringIO()
    segno.make(text, error="l").terminal(out, compact=True, border=1)
    return out.getvalue()


def page(made: Made, core_url: str, fingerprint: str, *, zh: str = "", en: str = "") -> str:
    """A label of 80 by 50 mm, as HTML without scripts."""
    text = label_text(core_url, made.code, fingerprint)
    name = html.escape(" ".join(part for part in (zh, en) if part))
    return f"""<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><title>{html.escape(made.gateway_id)}</title><style>
@page {{ size: 80mm 50mm; margin: 0 }}
body {{ font: 9pt/1.35 sans-serif; margin: 2mm; width: 76mm; height: 46mm; display: flex; gap: 2mm }}
svg {{ width: 34mm; height: 34mm }} b {{ font-size: 11pt }} code {{ font-size: 8.5pt; white-space: pre-wrap }}
small {{ color: #444; overflow-wrap: anywhere }}
</style></head><body><div>{qr_svg(text)}<br><small>{made.expires_at:%Y-%m-%d} 前有效 valid until</small></div>
<div><b>{html.escape(made.gateway_id)}</b> · {made.shard}<br>{name}<br>注册码 code<br><code>{made.code.text}</code><br>
<small>{html.escape(core_url)}<br>根证书指纹 CA SHA-256 {fingerprint}</small><br>
<small>一次有效，用后作废。 Works once.</small></div></body></html>
"""
