"""The way to the core, step by step: name, TCP, TLS, certificates, log-in, rights. The first that fails is the answer.

The log-in is spoken by hand (MQTT 3.1.1, OASIS 2014, sections 3.1 to 3.9) under a client id of its own and with a clean
session: the agent's own session, if it has one, is not thrown off and nothing is left at the broker.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from edge.config import EdgeConfig, read_secret
from edge.doctor.finding import BROKER, Finding, Level
from edge.identity.trust import certificate_in, client_context
from edge.mqtt_url import split_urls
from protocols.core.errors import ConfigError, LinkRefused
from protocols.uplink import topics

_STEP_S = 5.0
_EXPIRES_BAD_DAYS, _EXPIRES_SOON_DAYS = 3, 14
_REFUSALS = {
    1: ("协议版本不被接受", "protocol version"),
    2: ("客户端标识不被接受", "client id"),
    3: ("服务器暂不可用", "the server is not available"),
    4: ("用户名或密码错误", "user name or password"),
    5: ("未被授权", "not authorised"),
}


async def check(config: EdgeConfig, base: Path, now_ms: int, *, log_in: bool) -> AsyncIterator[Finding]:
    """``log_in`` false: stop before the log-in (the agent's own is up)."""
    tls, host, port = split_urls(config.mqtt.url)[0]
    try:
        found = await asyncio.wait_for(
            asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM), _STEP_S
        )
    except (OSError, TimeoutError, UnicodeError) as error:
        yield _bad(
            "dns",
            f"域名 {host} 无法解析（{_why(error)}）",
            f"the name {host} is not resolved ({_why(error)})",
            "检查 DNS 服务器设置与 mqtt.url 的拼写",
            "look at the DNS servers and the spelling of mqtt.url",
        )
        return
    addresses = ", ".join(sorted({str(one[4][0]) for one in found})[:3])
    context: ssl.SSLContext | None = None
    if tls:
        try:
            mqtt = config.mqtt
            files = [_path(base, name) for name in (mqtt.ca_file, mqtt.cert_file, mqtt.key_file)]
            context = client_context(files[0], files[1], files[2], now_ms / 1000)
        except LinkRefused as error:
            yield _bad(
                "files",
                f"证书文件有误：{error}",
                str(error),
                "核对 ca_file、cert_file、key_file 的路径与权限",
                "check path and permissions of ca_file, cert_file, key_file",
            )
            return
        for finding in _own_certificate(_path(base, config.mqtt.cert_file), now_ms):
            yield finding
    else:
        yield BROKER.note(
            "broker.plain",
            "连接未加密（mqtt://）",
            "the connection is not encrypted (mqtt://)",
            "除本机测试外请用 mqtts://",
            "use mqtts:// wherever the network is not yours",
        )
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_STEP_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=host if context else None
            )
        yield BROKER.ok(
            "broker.reached", f"{host}:{port}（{addresses}）可连接", f"{host}:{port} ({addresses}) is reached"
        )
        if context is not None:
            for finding in _server_certificate(writer, now_ms):
                yield finding
        if log_in:
            async for finding in _log_in(config, base, reader, writer):
                yield finding
    except ssl.SSLCertVerificationError as error:
        yield _verification(host, error)
    except ssl.SSLError as error:
        yield _bad(
            "tls",
            f"TLS 握手失败：{error.reason or error}",
            f"TLS fails: {error.reason or error}",
            "服务器可能要求客户端证书，或此端口不是 TLS",
            "the server may want a client certificate, or speaks no TLS",
        )
    except (TimeoutError, ConnectionRefusedError, asyncio.IncompleteReadError, OSError) as error:
        yield _bad(
            "tcp",
            f"{host}:{port}（{addresses}）不可达：{_why(error)}",
            f"{host}:{port} ({addresses}): {_why(error)}",
            "检查 SIM 卡与网络、防火墙是否放行该端口",
            "SIM card and network; does a firewall let the port through?",
        )
    finally:
        if writer is not None:
            writer.close()


def _own_certificate(cert_file: str, now_ms: int) -> Iterator[Finding]:
    if not cert_file:
        return
    certificate = certificate_in(Path(cert_file))
    if certificate is None:
        yield _bad(
            "own_certificate",
            f"{cert_file} 中没有证书",
            f"no certificate in {cert_file}",
            "重新登记网关",
            "enrol the gateway again",
        )
        return
    yield from _expiry(certificate, now_ms, "own", "本网关证书", "this gateway's certificate")


def _server_certificate(writer: asyncio.StreamWriter, now_ms: int) -> Iterator[Finding]:
    tls = writer.get_extra_info("ssl_object")
    data = tls.getpeercert(binary_form=True) if tls is not None else None
    if data:
        yield from _expiry(
            x509.load_der_x509_certificate(data), now_ms, "server", "服务器证书", "the server's certificate"
        )


def _expiry(certificate: x509.Certificate, now_ms: int, code: str, zh: str, en: str) -> Iterator[Finding]:
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    until = certificate.not_valid_after_utc
    days = (until - now).total_seconds() / 86_400
    life = (until - certificate.not_valid_before_utc).total_seconds() / 86_400
    # A certificate of a few days is renewed in its last third: the limits follow its life.
    bad, soon = min(_EXPIRES_BAD_DAYS, life / 10), min(_EXPIRES_SOON_DAYS, life / 4)
    level: Level = "bad" if days < bad else "warn" if days < soon else "ok"
    when = f"{until:%Y-%m-%d %H:%M} UTC"
    over = days < 0
    yield BROKER.judged(
        level,
        f"broker.{code}_certificate",
        f"{zh}{'已于' if over else '有效至'} {when}{'过期' if over else ''}",
        f"{en} {'expired' if over else 'is good until'} {when}",
        "更新证书；本机时钟不对时也会这样显示",
        "renew it; a wrong clock here looks the same",
    )


def _verification(host: str, error: ssl.SSLCertVerificationError) -> Finding:
    """The codes of X509_verify_cert_error_string(3ssl)."""
    match error.verify_code:
        case 9 | 10:
            zh, en = "服务器证书不在有效期内", "the server's certificate is outside its dates"
            todo_zh, todo_en = (
                "先检查本机时钟，再请管理员更新服务器证书",
                "look at this clock first, then have it renewed",
            )
        case 62 | 64:
            zh, en = f"服务器证书不是发给 {host} 的", f"the server's certificate is not for {host}"
            todo_zh, todo_en = "mqtt.url 用证书上的名字", "use the name in the certificate in mqtt.url"
        case 18 | 19 | 20 | 21:
            zh, en = "服务器证书不是所信任的机构签发的", "the server's certificate is not from the authority we trust"
            todo_zh, todo_en = (
                "核对 mqtt.ca_file 是否为城市平台给的那一份",
                "is mqtt.ca_file the one the city gave out?",
            )
        case _:
            zh, en = (
                f"服务器证书未通过检查：{error.verify_message}",
                f"the server's certificate: {error.verify_message}",
            )
            todo_zh, todo_en = "联系平台管理员", "ask the platform's administrator"
    return _bad("certificate", zh, en, todo_zh, todo_en)


async def _log_in(
    config: EdgeConfig, base: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncIterator[Finding]:
    mqtt, gateway = config.mqtt, config.gateway
    try:
        password = read_secret(Path(mqtt.password_file), base) if mqtt.password_file else ""
    except ConfigError as error:
        yield _bad(
            "password",
            f"密码文件读不到：{error}",
            str(error),
            "核对 mqtt.password_file 与权限（0600）",
            "check mqtt.password_file and its permissions (0600)",
        )
        return
    async with asyncio.timeout(_STEP_S):
        writer.write(_connect(f"{gateway.id}-doctor-{secrets.token_hex(3)}", mqtt.username, password))
        header = await reader.readexactly(4)
    if header[0] != 0x20 or header[1] != 2:
        yield _bad(
            "mqtt",
            "对方不讲 MQTT",
            "the other side speaks no MQTT",
            "核对 mqtt.url 的端口",
            "check the port of mqtt.url",
        )
        return
    if header[3]:
        zh, en = _REFUSALS.get(header[3], (f"代码 {header[3]}", f"code {header[3]}"))
        yield _bad(
            "login",
            f"登录被拒：{zh}",
            f"log-in refused: {en}",
            "核对用户名、密码文件、证书；网关可能已被吊销",
            "check user name, password file, certificate; the gateway may have been revoked",
        )
        return
    yield BROKER.ok("broker.login", "登录成功", "logged in")
    topic = topics.down(gateway.shard, gateway.id, "+")
    async with asyncio.timeout(_STEP_S):
        writer.write(_subscribe(topic))
        answer = await reader.readexactly(5)
    if answer[0] != 0x90 or answer[4] == 0x80:
        yield _bad(
            "rights",
            f"不许订阅 {topic}",
            f"not allowed to subscribe to {topic}",
            "核对 gateway.id 与 gateway.shard 是否与登记的一致",
            "are gateway.id and gateway.shard as enrolled?",
        )
    else:
        yield BROKER.ok("broker.rights", f"可订阅 {topic}", f"may subscribe to {topic}")
    writer.write(b"\xe0\x00")  # DISCONNECT


def _connect(client_id: str, username: str, password: str) -> bytes:
    flags = 0x02 | (0xC0 if username else 0)  # clean session, user name and password
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + (30).to_bytes(2, "big") + _text(client_id)
    if username:
        body += _text(username) + _text(password)
    return b"\x10" + _length(len(body)) + body


def _subscribe(topic: str) -> bytes:
    body = b"\x00\x01" + _text(topic) + b"\x01"
    return b"\x82" + _length(len(body)) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _length(number: int) -> bytes:
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(out)


def _path(base: Path, name: str) -> str:
    return str(base / name) if name else ""


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"{_STEP_S:g} s"
    if isinstance(error, asyncio.IncompleteReadError):
        return "closed by the other side"
    return str(getattr(error, "strerror", None) or error)


def _bad(code: str, zh: str, en: str, todo_zh: str, todo_en: str) -> Finding:
    return BROKER.bad(f"broker.{code}", zh, en, todo_zh, todo_en)
