"""`citybrain capture` and `citybrain replay`: real traffic to a file with its times, and back again.

```
 device ⇄ connector ──▶ recording.jsonl ──▶ told by the codec      (replay FILE)
                                       └──▶ played as a device      (replay FILE --connect | --listen | --pty)
```
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError, LinkDown
from protocols.core.explain import Capture
from protocols.core.recording import Recording, read


def add(commands: Any) -> None:
    capture = commands.add_parser(
        "capture",
        help="record the real traffic of one connector",
        description="Runs one connector alone, so the agent must not hold its port. Stations get no acknowledgement: "
        "what is recorded is not stored, they send it again.",
    )
    capture.add_argument("config", type=Path, help="the gateway's TOML file")
    capture.add_argument("connector", help="connector id")
    capture.add_argument("-o", "--output", type=Path, required=True, help="recording to write (.jsonl)")
    capture.add_argument("--for", dest="for_s", type=float, default=60.0, metavar="S", help="seconds (default 60)")
    capture.set_defaults(do=_capture)

    replay = commands.add_parser("replay", help="play a recording through the codec, or as a device")
    replay.add_argument("recording", type=Path)
    replay.add_argument("--json", action="store_true", help="one JSON object a frame")
    replay.add_argument("--lang", choices=("zh", "en"), default="en", help="language of the labels")
    replay.add_argument("--link", type=int, default=None, help="which of the recorded links (default: the first)")
    replay.add_argument("--speed", type=float, default=1.0, help="times as fast (pushing devices)")
    place = replay.add_mutually_exclusive_group()
    place.add_argument("--connect", metavar="HOST:PORT", help="as a station that dials in there")
    place.add_argument("--listen", metavar="HOST:PORT", help="as a device that listens there")
    place.add_argument("--pty", metavar="PATH", help="as a device on a serial line of that name")
    replay.set_defaults(do=_replay)


def _capture(options: argparse.Namespace) -> int:
    from edge.capture import capture, find
    from edge.clock import WallClock
    from edge.config import load

    config = find(load(options.config), options.connector)
    print(f"recording {options.connector} for {options.for_s:g} s 正在录制 ... (Ctrl-C ends it)", flush=True)

    def tell(line: str) -> None:
        print(f"  {line}", flush=True)

    try:
        recorder, watcher = asyncio.run(
            capture(
                config,
                options.output,
                WallClock(),
                for_s=options.for_s,
                tell=tell,
                base=options.config.resolve().parent,
            )
        )
    except KeyboardInterrupt:
        print(f"{options.output} holds what came so far 已保存")
        return 130
    print(
        f"{options.output}: {recorder.bytes_in} bytes in, {recorder.bytes_out} out; the connector read "
        f"{watcher.readings} values in {watcher.sweeps} sweeps 已读 {watcher.readings} 个值"
    )
    return 0 if recorder.bytes_in else 1


def _replay(options: argparse.Namespace) -> int:
    recording = read(options.recording)
    links = recording.links()
    if not links:
        raise ConfigError(f"{options.recording}: holds no traffic")
    if options.link is not None and options.link not in links:
        raise ConfigError(f"--link {options.link}: there are {', '.join(map(str, links))}")
    link = links[0] if options.link is None else options.link
    if options.connect or options.listen or options.pty:
        if options.speed <= 0:
            raise ConfigError("--speed: above 0")
        return asyncio.run(_play(recording, link, options))
    return _tell(recording, links if options.link is None else (link,), options)


def _tell(recording: Recording, links: tuple[int, ...], options: argparse.Namespace) -> int:
    from citybrain_cli.decode import as_json, as_text
    from protocols.registry import family

    explain = family(recording.protocol).explainer()
    good = bad = 0
    for link in links:
        for asked, came in recording.exchanges(link):
            for direction, data, request in (("out", asked, b""), ("in", came, asked)):
                if not data:
                    continue
                told = explain(Capture(data, request=request))
                good += len(told.good)
                bad += len(told.frames) - len(told.good)
                if options.json:
                    print(json.dumps({"link": link, "direction": direction, **as_json(told)}, ensure_ascii=False))
                else:
                    print(f"-- link {link} {direction}\n{as_text(told, options.lang)}")
    if not options.json:
        print(f"{good} frames read 已解析, {bad} refused 被拒")
    return 0 if good else 1


async def _play(recording: Recording, link: int, options: argparse.Namespace) -> int:
    from firmware_sim.clock import WallClock
    from firmware_sim.links.base import Serve
    from firmware_sim.links.pty import PtyLink
    from firmware_sim.links.tcp import TcpListener, tcp_dial
    from firmware_sim.replay import Answerer, Pusher, polled

    player: Answerer | Pusher
    player = (
        Answerer(recording, link)
        if polled(recording, link)
        else Pusher(recording, link, WallClock(), speed=options.speed)
    )
    serve: Serve = player.serve
    if options.connect:
        dialled = await tcp_dial(options.connect)()
        try:
            await serve(dialled)
        finally:
            await dialled.close()
    elif options.pty:
        line = PtyLink.open(options.pty)
        print(f"serving {options.pty} (Ctrl-C ends it)", flush=True)
        try:
            await serve(line)
        finally:
            await line.close()
    else:
        listener = TcpListener(options.listen, serve)
        await listener.resume()
        print(f"listening on {listener.address} (Ctrl-C ends it)", flush=True)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await listener.pause()
    if isinstance(player, Pusher):
        print(f"{player.sent_bytes} bytes sent, {player.heard_bytes} heard")
        if not player.sent_bytes:
            raise LinkDown("nothing was sent: the recording holds nothing from the device on that link")
    return 0
