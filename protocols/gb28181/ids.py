"""GB/T 28181 identities: 20 digits that say place, trade, kind, network and number (annex D)."""

from __future__ import annotations

import re

_ID = re.compile(r"\d{20}\Z")

KINDS: dict[str, tuple[str, str]] = {
    "111": ("DVR", "dvr"), "112": ("视频服务器", "video_server"), "113": ("编码器", "encoder"),
    "114": ("解码器", "decoder"), "115": ("视频切换矩阵", "matrix"), "118": ("NVR", "nvr"),
    "131": ("摄像机", "camera"), "132": ("网络摄像机", "ip_camera"), "133": ("显示器", "monitor"),
    "134": ("报警输入设备", "alarm_input"), "135": ("报警输出设备", "alarm_output"),
    "136": ("语音输入设备", "audio_input"), "137": ("语音输出设备", "audio_output"),
    "138": ("移动传输设备", "mobile"), "200": ("中心信令控制服务器", "platform"),
    "202": ("媒体服务器", "media_server"), "215": ("业务分组", "business_group"),
    "216": ("虚拟组织", "virtual_group"),
}  # fmt: skip


def valid(text: str) -> bool:
    return _ID.match(text) is not None


def kind(text: str) -> str:
    """``camera``, ``nvr`` ...; "" for what is no identity or of no known kind."""
    return KINDS.get(text[10:13], ("", ""))[1] if valid(text) else ""


def kind_zh(text: str) -> str:
    return KINDS.get(text[10:13], ("", ""))[0] if valid(text) else ""
