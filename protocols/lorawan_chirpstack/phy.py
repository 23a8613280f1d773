"""The radio frame itself, for test rigs and for whoever holds a packet-forwarder log (LoRaWAN 1.0.3, chapter 4).

PHYPayload = MHDR u8 | payload | MIC 4; integers and EUIs little endian. Keys are optional: without them the shape is
told, with them the MIC is checked and the payload decrypted. A join accept is encrypted with AES's *decrypt*, so that
a device needs *encrypt* alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.core.errors import RemoteProtocolError

TYPES = (
    "join_request",
    "join_accept",
    "unconfirmed_up",
    "unconfirmed_down",
    "confirmed_up",
    "confirmed_down",
    "rejoin_request",
    "proprietary",
)
#: Counters are 32 bits, 16 travel: this many rounds are tried for a MIC that does not fit.
_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Keys:
    """16 bytes each, None: not given. For 1.1's join accept ``join_eui`` and ``dev_nonce`` are needed, too."""

    app_key: bytes | None = None
    nwk_s_key: bytes | None = None
    app_s_key: bytes | None = None
    s_nwk_s_int_key: bytes | None = None  # 1.1: signs downlinks, and half of an uplink's MIC
    f_nwk_s_int_key: bytes | None = None  # 1.1: the half of an uplink's MIC that any network can check
    nwk_s_enc_key: bytes | None = None  # 1.1: encrypts MAC commands, in FOpts too
    js_int_key: bytes | None = None  # 1.1: signs join accepts; else the app_key does
    join_eui: bytes | None = None  # as printed: highest byte first
    dev_nonce: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """``fields``: what the frame says, by name. ``mic``: as it stands in the (decrypted) frame; ``computed`` None: no
    key was given. ``layout``: name, offset, length."""

    mtype: str
    fields: Mapping[str, object]
    mic: str
    computed: str | None = None
    layout: tuple[tuple[str, int, int], ...] = field(default=())

    @property
    def mic_ok(self) -> bool | None:
        return None if self.computed is None else self.computed == self.mic


#: The radio's length field is one byte.
MAX_BYTES = 255


def decode(data: bytes, keys: Keys = Keys()) -> Frame:
    """Raises RemoteProtocolError (``short``, ``length``, ``version``). A wrong MIC is for the caller to judge."""
    if data and TYPES[data[0] >> 5] == "proprietary":  # the maker's from here on: no MIC, no lengths
        return Frame("proprietary", {"payload_hex": data[1:].hex()}, "", layout=(("payload", 1, len(data) - 1),))
    if len(data) < 5:
        raise RemoteProtocolError(f"{len(data)} bytes; a frame has 5 at least", reason="short")
    if len(data) > MAX_BYTES:
        raise RemoteProtocolError(f"{len(data)} bytes; no radio frame has more than {MAX_BYTES}", reason="length")
    mtype = TYPES[data[0] >> 5]
    if data[0] & 0x1F:
        raise RemoteProtocolError(f"{data[0]:02x}: reserved bits or a major version that is not 0", reason="version")
    if mtype == "join_request":
        return _join_request(data, keys)
    if mtype == "join_accept":
        return _join_accept(data, keys)
    if mtype == "rejoin_request":
        return Frame(mtype, {"payload_hex": data[1:-4].hex()}, data[-4:].hex(), layout=(("payload", 1, len(data) - 5),))
    return _data(data, mtype, keys)


def _join_request(data: bytes, keys: Keys) -> Frame:
    if len(data) != 23:
        raise RemoteProtocolError(f"a join request has 23 bytes, not {len(data)}", reason="length")
    fields = {
        "join_eui": data[1:9][::-1].hex(),
        "dev_eui": data[9:17][::-1].hex(),
        "dev_nonce": int.from_bytes(data[17:19], "little"),
    }
    layout = (("join_eui", 1, 8), ("dev_eui", 9, 8), ("dev_nonce", 17, 2), ("mic", 19, 4))
    computed = cmac(keys.app_key, data[:-4])[:4].hex() if keys.app_key else None
    return Frame("join_request", fields, data[-4:].hex(), computed, layout)


def _join_accept(data: bytes, keys: Keys) -> Frame:
    if len(data) not in (17, 33):
        raise RemoteProtocolError(f"a join accept has 17 or 33 bytes, not {len(data)}", reason="length")
    if keys.app_key is None:
        return Frame("join_accept", {"encrypted_hex": data[1:].hex()}, "", layout=(("encrypted", 1, len(data) - 1),))
    plain = _aes_blocks(keys.app_key, data[1:])
    settings = plain[10]
    fields: dict[str, object] = {
        "plain_hex": plain.hex(),
        "join_nonce": int.from_bytes(plain[0:3], "little"),
        "net_id": plain[3:6][::-1].hex(),
        "dev_addr": plain[6:10][::-1].hex(),
        "dl_settings": settings,
        "opt_neg": bool(settings & 0x80),
        "rx1_dr_offset": settings >> 4 & 7,
        "rx2_dr": settings & 15,
        "rx_delay": plain[11],
    }
    if len(plain) == 32:
        fields["cf_list_hex"] = plain[12:28].hex()
        if plain[27] == 0:
            fields["cf_list_hz"] = [int.from_bytes(plain[at : at + 3], "little") * 100 for at in range(12, 27, 3)]
    signed = data[:1] + plain[:-4]
    computed: str | None = None
    if not settings & 0x80:
        computed = cmac(keys.app_key, signed)[:4].hex()
    elif keys.join_eui is not None and keys.dev_nonce is not None:  # 1.1 signs what was asked for, too
        signed = b"\xff" + keys.join_eui[::-1] + keys.dev_nonce.to_bytes(2, "little") + signed
        computed = cmac(keys.js_int_key or keys.app_key, signed)[:4].hex()
    elif plain[11] > 15:
        # The delay has 4 bits: a wrong key, for which there is no MIC to prove it.
        computed = cmac(keys.app_key, signed)[:4].hex()
    return Frame("join_accept", fields, plain[-4:].hex(), computed, (("encrypted", 1, len(data) - 1),))


def _data(data: bytes, mtype: str, keys: Keys) -> Frame:
    if len(data) < 12:
        raise RemoteProtocolError(f"{len(data)} bytes; a data frame has 12 at least", reason="short")
    up = mtype.endswith("_up")
    control = data[5]
    opts_end = 8 + (control & 15)
    body_end = len(data) - 4
    if opts_end > body_end:
        raise RemoteProtocolError("the frame ends inside its MAC commands", reason="short", offset=8)
    counter = int.from_bytes(data[6:8], "little")
    fields: dict[str, object] = {
        "dev_addr": data[1:5][::-1].hex(),
        "adr": bool(control & 0x80),
        "ack": bool(control & 0x20),
        "f_cnt": counter,
        "f_opts_hex": data[8:opts_end].hex(),
    }
    layout = [("dev_addr", 1, 4), ("f_ctrl", 5, 1), ("f_cnt", 6, 2), ("f_opts", 8, opts_end - 8)]
    computed: str | None = None
    for high in range(_ROUNDS):
        computed = _data_mic(data, up, high << 16 | counter, keys)
        if computed == data[-4:].hex():
            counter |= high << 16
            fields["f_cnt"] = counter
            break
        if computed is None:
            break
    else:
        computed = _data_mic(data, up, counter, keys)
    commands = data[8:opts_end]
    if commands and keys.nwk_s_enc_key is not None:  # 1.1 encrypts them
        application = not up and opts_end < body_end and data[opts_end] > 0  # counted apart from the network's frames
        block = bytes((1, 0, 0, 0, 2 if application else 1)) + _block(0, up, data[1:5], counter, 1)[5:]
        commands = bytes(a ^ b for a, b in zip(commands, _aes_blocks(keys.nwk_s_enc_key, block), strict=False))
        fields |= {"f_opts_hex": commands.hex(), "f_opts_encrypted_hex": data[8:opts_end].hex()}
    if opts_end < body_end:
        port = data[opts_end]
        raw = data[opts_end + 1 : body_end]
        fields["f_port"] = port
        layout += [("f_port", opts_end, 1), ("payload", opts_end + 1, len(raw))]
        key = keys.app_s_key if port else keys.nwk_s_enc_key or keys.nwk_s_key
        if key is not None:
            raw = _crypt(key, raw, up, data[1:5], counter)
            fields["payload_hex"] = raw.hex()
            commands = commands if port else raw
        else:
            fields["encrypted_hex"] = raw.hex()
    fields |= mac_commands(commands, up)
    layout.append(("mic", body_end, 4))
    return Frame(mtype, fields, data[-4:].hex(), computed, tuple(layout))


def _data_mic(data: bytes, up: bool, counter: int, keys: Keys) -> str | None:
    """The MIC that a data frame with that full counter should have; None without a key for it. An uplink of 1.1 is
    signed twice; the first half also covers channel and data rate, which the frame does not tell, and is taken as is.
    """
    end = len(data) - 4
    signed = _block(0x49, up, data[1:5], counter, end) + data[:-4]
    if keys.nwk_s_key is not None:
        return cmac(keys.nwk_s_key, signed)[:4].hex()
    if up and keys.f_nwk_s_int_key is not None:
        return (data[-4:-2] + cmac(keys.f_nwk_s_int_key, signed)[:2]).hex()
    if not up and keys.s_nwk_s_int_key is not None:
        return cmac(keys.s_nwk_s_int_key, signed)[:4].hex()
    return None


#: Length of each MAC command's content, uplink and downlink (LoRaWAN 1.0.3, chapter 5).
_COMMANDS: dict[int, tuple[str, int, int]] = {
    0x02: ("link_check", 0, 2),
    0x03: ("link_adr", 1, 4),
    0x04: ("duty_cycle", 0, 1),
    0x05: ("rx_param_setup", 1, 4),
    0x06: ("dev_status", 2, 0),
    0x07: ("new_channel", 1, 5),
    0x08: ("rx_timing_setup", 0, 1),
    0x09: ("tx_param_setup", 0, 1),
    0x0A: ("dl_channel", 1, 4),
    0x0D: ("device_time", 0, 5),
}


def mac_commands(data: bytes, up: bool) -> dict[str, object]:
    """The MAC commands by name; what cannot be read ends the list, for the length of an unknown one is unknown."""
    out: dict[str, object] = {}
    at = 0
    while at < len(data) and data[at] in _COMMANDS:
        name, up_size, down_size = _COMMANDS[data[at]]
        size = up_size if up else down_size
        content = data[at + 1 : at + 1 + size]
        if len(content) < size:
            break
        if name == "dev_status" and up:
            margin = content[1] & 0x3F
            out[name] = {"battery": content[0], "margin": margin - 64 if margin > 31 else margin}
        elif name == "link_check" and not up:
            out[name] = {"margin": content[0], "gw_cnt": content[1]}
        else:
            out[name] = content.hex()
        at += 1 + size
    return out


# -- AES ---------------------------------------------------------------------------------------------------------------


def cmac(key: bytes, data: bytes) -> bytes:
    """AES-CMAC (RFC 4493)."""
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.cmac import CMAC

    made = CMAC(AES(key))
    made.update(data)
    return made.finalize()


def _aes_blocks(key: bytes, data: bytes) -> bytes:
    """AES encrypt of single blocks: the standard's own construction, no mode is meant."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    made = Cipher(AES(key), ECB()).encryptor()  # noqa: S305
    return made.update(data) + made.finalize()


def _block(first: int, up: bool, address: bytes, counter: int, last: int) -> bytes:
    head = bytes((first, 0, 0, 0, 0, 0 if up else 1))
    return head + address + counter.to_bytes(4, "little") + bytes((0, last))


def _crypt(key: bytes, data: bytes, up: bool, address: bytes, counter: int) -> bytes:
    blocks = (len(data) + 15) // 16
    stream = b"".join(_aes_blocks(key, _block(0x01, up, address, counter, n)) for n in range(1, blocks + 1))
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))
