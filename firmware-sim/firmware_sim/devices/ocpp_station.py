"""A charging station: boots, tells its states, charges in cycles, keeps its transactions until they are answered.

``address``: its name in the URL. Options: ``version`` "1.6" or "2.0.1", ``charge_s`` and ``idle_s`` (a car comes each
``idle_s`` and stays ``charge_s``; 0: never by itself), ``card``, ``password``, ``offline`` (charges without anybody's
leave, as most stations may). Signals give power, current and the rest; power beyond the limit it was told is cut.

Faults of its own: ``integer_ids`` (message ids are numbers), ``no_boot`` (never notifies its start), ``resend`` (after
each reconnection the last transaction message goes out again although it was answered), ``long_info`` (a remark longer
than allowed with every state).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from firmware_sim.devices.dialing import DialingStation
from firmware_sim.devices.ocpp_obey import Outgoing, Slot, obey
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.links.base import Dial
from firmware_sim.links.websocket import websocket_dial
from firmware_sim.scene import Device
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError
from protocols.devices.values import raw_of
from protocols.ocpp import times
from protocols.ocpp.endpoint import OcppEndpoint, Unanswered
from protocols.ocpp.frame import SUBPROTOCOLS, Call, CallError, CallResult, Version
from protocols.ocpp.schema import actions

#: Transaction messages kept in flash while nobody answers.
KEEP_CALLS = 5_000
#: A call refused by the central system is tried so often (TransactionMessageAttempts).
ATTEMPTS = 3
_LONG = "User didn't disconnect vehicle within 00:10:00 minutes after charging has ended."


class OcppStation(DialingStation):
    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        super().__init__(device, faults, world)
        version = device.options.get("version", "1.6")
        if version not in SUBPROTOCOLS.values():
            raise ConfigError(f"device {device.id}: options.version: 1.6 or 2.0.1")
        self.version: Version = "2.0.1" if version == "2.0.1" else "1.6"
        self._endpoint = self._new_endpoint()
        self._queue: deque[Outgoing] = deque()
        self._asked: Outgoing | None = None
        self._last_kept: Outgoing | None = None
        self._accepted = False
        self._interval_s = 300
        self._beat_ms = 0
        self._calls = 0
        self._charges = 0
        self._boots = 0
        numbers = sorted({int(key) for key in self._places() if key != "0"})
        self.slots = {number: Slot(number) for number in numbers}

    def _places(self) -> set[str]:
        return {p.value.key.partition("/")[0] for p in self.senses.type.points if p.value is not None}

    def _new_endpoint(self) -> OcppEndpoint:
        return OcppEndpoint(Role.SLAVE, version=self.version, checked=False)

    def dialler(self, connect: str, key: str) -> Dial:
        name = str(self.device.address)
        subprotocol = next(one for one, version in SUBPROTOCOLS.items() if version == self.version)
        password = str(self.device.options.get("password", ""))
        return websocket_dial(f"ws://{connect}/ocpp/{name}", subprotocol, user=name, password=password)

    def _option_s(self, name: str) -> float:
        return float(self.device.options.get(name, 0.0))

    # -- life ---------------------------------------------------------------------------------------------------
    def dialled(self, now_ms: int) -> None:
        self._endpoint, self._asked, self._accepted = self._new_endpoint(), None, False
        t_s = self.world.t_s(now_ms)
        if self.faults.on("no_boot", t_s, now_ms):
            self._accepted = True
            self.tell_states(now_ms)
        else:
            self._queue.appendleft(Outgoing("BootNotification", self._boot()))
        if self.faults.on("resend", t_s, now_ms) and self._last_kept is not None:
            self._queue.append(self._last_kept)
        self._pump(now_ms)

    def power_lost(self) -> None:
        # Transactions are in flash; states are told again after the start. Who was charging charges no more.
        self._queue = deque(one for one in self._queue if one.kept)
        self._boots += 1
        now_ms, t_s = self.now()
        for slot in self.slots.values():
            if slot.charging_since_s is not None:
                self.stop(slot, t_s, now_ms, "PowerLoss")

    def tick(self, now_ms: int) -> None:
        for one in self._endpoint.tick(now_ms):
            if isinstance(one, Unanswered):
                self._again()
        if self._accepted and now_ms - self._beat_ms >= self._interval_s * 1000:
            self._beat_ms = now_ms
            self._queue.append(Outgoing("Heartbeat", {}))
        self._pump(now_ms)

    def _again(self) -> None:
        """The call under way got no answer: what must not be lost goes first again."""
        call, self._asked = self._asked, None
        if call is not None and call.kept:
            self._queue.appendleft(call)

    # -- measuring ----------------------------------------------------------------------------------------------
    def record(self, t_s: float, now_ms: int) -> None:
        charge_s, idle_s = self._option_s("charge_s"), self._option_s("idle_s")
        for slot in self.slots.values():
            if slot.charging_since_s is None:
                cycle_s = charge_s + idle_s
                if charge_s and slot.in_service and t_s % cycle_s >= idle_s:
                    self.start(slot, t_s, now_ms, str(self.device.options.get("card", "04A1B2C3")), charge_s)
                continue
            slot.energy_wh += self._watts(slot, t_s) * self.device.interval_s / 3600
            if slot.stops_s and t_s >= slot.stops_s:
                self.stop(slot, t_s, now_ms, "EVDisconnected")
            else:
                self._meter(slot, t_s, now_ms)
        self._pump(now_ms)

    def _watts(self, slot: Slot, t_s: float) -> float:
        """What it gives now: the scene's power, cut to the limit."""
        point = self._point(f"{slot.number}/Power.Active.Import")
        power = self.senses(point, t_s) if point else 0.0
        power = 0.0 if power != power else power
        return power if slot.limit_w is None else min(power, slot.limit_w)

    def _point(self, key: str) -> str:
        return next((p.name for p in self.senses.type.points if p.value is not None and p.value.key == key), "")

    def _samples(self, slot: Slot, t_s: float) -> list[dict[str, Any]]:
        rows: list[tuple[str, float]] = [("Energy.Active.Import.Register", round(slot.energy_wh))]
        for point in self.senses.type.points:
            place, _, measurand = point.value.key.partition("/") if point.value is not None else ("", "", "")
            if place != str(slot.number) or ("." not in measurand and measurand not in ("Voltage", "SoC")):
                continue
            if measurand == "Energy.Active.Import.Register" or not self.senses.has(point.name):
                continue
            value = self._watts(slot, t_s) if measurand == "Power.Active.Import" else self.senses(point.name, t_s)
            raw = raw_of(point, value)
            if isinstance(raw, float):
                rows.append((measurand, round(raw, point.decimals)))
        units = {"Energy": "Wh", "Power": "W", "Current": "A", "Voltage": "V", "SoC": "Percent"}
        out: list[dict[str, Any]] = []
        for measurand, value in rows:
            unit = units[measurand.partition(".")[0]]
            if self.version == "1.6":
                out.append({"measurand": measurand, "unit": unit, "value": f"{value:g}"})
            else:
                out.append({"measurand": measurand, "unitOfMeasure": {"unit": unit}, "value": value})
        return out

    def _metered(self, slot: Slot, t_s: float, now_ms: int) -> list[dict[str, Any]]:
        return [{"timestamp": self.time_text(now_ms), "sampledValue": self._samples(slot, t_s)}]

    def boot_again(self) -> None:
        """Notify the start once more: after a restart that was ordered, or when asked."""
        self._queue.append(Outgoing("BootNotification", self._boot()))

    def time_text(self, now_ms: int) -> str:
        return times.write(self.clock_ms(now_ms))

    # -- what it says -------------------------------------------------------------------------------------------
    def _boot(self) -> dict[str, Any]:
        if self.version == "1.6":
            return {"chargePointVendor": "citybrain", "chargePointModel": "simulated", "firmwareVersion": "1.0"}
        station = {"vendorName": "citybrain", "model": "simulated", "firmwareVersion": "1.0"}
        return {"reason": "PowerUp", "chargingStation": station}

    def tell(self, action: str, payload: dict[str, Any]) -> None:
        """Say something when it is its turn."""
        self._queue.append(Outgoing(action, payload))

    def tell_states(self, now_ms: int) -> None:
        for slot in self.slots.values():
            self._tell_state(slot, now_ms)

    def _tell_state(self, slot: Slot, now_ms: int) -> None:
        if self.version == "1.6":
            payload: dict[str, Any] = {"connectorId": slot.number, "status": slot.status, "errorCode": "NoError"}
            if self.faults.on("long_info", self.world.t_s(now_ms), now_ms):
                payload["info"] = _LONG
            payload["timestamp"] = self.time_text(now_ms)
        else:
            word = {"Available": "Available", "Unavailable": "Unavailable"}.get(slot.status, "Occupied")
            payload = {
                "timestamp": self.time_text(now_ms),
                "connectorStatus": word,
                "evseId": slot.number,
                "connectorId": 1,
            }
        self._queue.append(Outgoing("StatusNotification", payload))

    def state(self, slot: Slot, status: str, now_ms: int) -> None:
        slot.status = status
        if self.connected:
            self._tell_state(slot, now_ms)

    def start(self, slot: Slot, t_s: float, now_ms: int, card: str, for_s: float) -> None:
        self._charges += 1
        slot.charging_since_s, slot.stops_s = t_s, t_s + for_s if for_s else 0.0
        slot.started_wh, slot.number_16, slot.sequence = slot.energy_wh, None, 0
        slot.name_201 = f"{self.id}-{self._boots}-{self._charges}"
        self.world.ledger.write("charge", self.id, now_ms, slot=slot.number, what="start", wh=round(slot.energy_wh))
        self.state(slot, "Charging", now_ms)
        if self.version == "1.6":
            payload = {
                "connectorId": slot.number,
                "idTag": card,
                "meterStart": round(slot.energy_wh),
                "timestamp": self.time_text(now_ms),
            }
            self._keep(Outgoing("StartTransaction", payload, True, slot.number), now_ms)
        else:
            self._event(slot, "Started", "Authorized", t_s, now_ms, idToken={"idToken": card, "type": "ISO14443"})

    def _event(self, slot: Slot, kind: str, trigger: str, t_s: float, now_ms: int, **more: Any) -> None:
        info: dict[str, Any] = {"transactionId": slot.name_201}
        info |= {"stoppedReason": more.pop("reason")} if "reason" in more else {"chargingState": "Charging"}
        payload: dict[str, Any] = {
            "eventType": kind,
            "timestamp": self.time_text(now_ms),
            "triggerReason": trigger,
            "seqNo": slot.sequence,
            "transactionInfo": info,
            "evse": {"id": slot.number, "connectorId": 1},
            "meterValue": self._metered(slot, t_s, now_ms),
            **more,
        }
        if not self.connected:
            payload["offline"] = True
        slot.sequence += 1
        self._keep(Outgoing("TransactionEvent", payload, True), now_ms)

    def _meter(self, slot: Slot, t_s: float, now_ms: int) -> None:
        if self.version == "2.0.1":
            self._event(slot, "Updated", "MeterValuePeriodic", t_s, now_ms)
            return
        payload = {"connectorId": slot.number, "meterValue": self._metered(slot, t_s, now_ms)}
        self._numbered(slot, Outgoing("MeterValues", payload, True), now_ms)

    def stop(self, slot: Slot, t_s: float, now_ms: int, reason: str) -> None:
        slot.charging_since_s = None
        self.world.ledger.write("charge", self.id, now_ms, slot=slot.number, what="stop", wh=round(slot.energy_wh))
        if self.version == "2.0.1":
            self._event(slot, "Ended", "EVDeparted", t_s, now_ms, reason=reason)
        else:
            stop = {"meterStop": round(slot.energy_wh), "timestamp": self.time_text(now_ms), "reason": reason}
            self._numbered(slot, Outgoing("StopTransaction", stop, True), now_ms)
            slot.number_16 = None
        self.state(slot, "Available" if slot.in_service else "Unavailable", now_ms)

    def _numbered(self, slot: Slot, call: Outgoing, now_ms: int) -> None:
        """1.6: what belongs to a transaction carries the server's number, which may still be on its way."""
        if slot.number_16 is None:
            slot.waiting.append(call)
            del slot.waiting[:-KEEP_CALLS]
            return
        call.payload["transactionId"] = slot.number_16
        self._keep(call, now_ms)

    def _keep(self, call: Outgoing, now_ms: int) -> None:
        self.world.ledger.write("up", self.id, now_ms, action=call.action)
        self._queue.append(call)
        while len(self._queue) > KEEP_CALLS:
            lost = self._queue.popleft()
            self.world.ledger.write("gave_up", self.id, now_ms, action=lost.action)

    def _pump(self, now_ms: int) -> None:
        """One call at a time; before it is accepted a station says nothing but that it has started."""
        if not self.connected or self._asked is not None or not self._queue:
            return
        if not self._accepted and self._queue[0].action != "BootNotification":
            return
        outgoing = self._queue.popleft()
        self._asked = outgoing
        self._calls += 1
        integers = self.faults.on("integer_ids", self.world.t_s(now_ms), now_ms)
        message_id = self._calls if integers else f"{self.id}-{self._boots}-{self._calls}"
        self.put(self._endpoint.send(Call(message_id, outgoing.action, outgoing.payload), now_ms))

    # -- what it hears ------------------------------------------------------------------------------------------
    def heard(self, data: bytes, now_ms: int) -> None:
        for line in data.split(b"\n"):
            if not line:
                continue
            for one in self._endpoint.feed(line, now_ms):
                match one:
                    case Call():
                        self._told(one, now_ms)
                    case CallResult():
                        self._answered(one, now_ms)
                    case CallError():
                        self._refused(now_ms)
                    case _:
                        pass  # a station has nobody to tell of a broken frame
            if out := self._endpoint.take_output():
                self.put(out)
        self._pump(now_ms)

    def _answered(self, result: CallResult, now_ms: int) -> None:
        outgoing, self._asked = self._asked, None
        if outgoing is None:
            return
        if outgoing.kept:
            self._last_kept = outgoing
            self.world.ledger.write("ack", self.id, now_ms, action=outgoing.action)
        if outgoing.action == "BootNotification":
            self._accepted = result.payload.get("status") == "Accepted"
            self._interval_s = max(10, int(result.payload.get("interval") or 300))
            self._beat_ms = now_ms
            if self._accepted:
                self.tell_states(now_ms)
            else:
                self._queue.appendleft(Outgoing("BootNotification", self._boot()))
        elif outgoing.action == "StartTransaction":
            self._number_given(self.slots[outgoing.slot], int(result.payload["transactionId"]), now_ms)

    def _number_given(self, slot: Slot, number: int, now_ms: int) -> None:
        waiting, slot.waiting = slot.waiting, []
        if slot.charging_since_s is not None:
            slot.number_16 = number
        for call in waiting:
            call.payload["transactionId"] = number
            self._keep(call, now_ms)

    def _refused(self, now_ms: int) -> None:
        outgoing, self._asked = self._asked, None
        if outgoing is None or not outgoing.kept:
            return
        outgoing.attempts += 1
        if outgoing.attempts < ATTEMPTS:
            self._queue.appendleft(outgoing)
        else:
            self.world.ledger.write("gave_up", self.id, now_ms, action=outgoing.action)

    # -- orders -------------------------------------------------------------------------------------------------
    def _told(self, call: Call, now_ms: int) -> None:
        t_s = self.world.t_s(now_ms)
        payload = obey(self, call.action, call.payload, t_s, now_ms)
        answer: CallResult | CallError = CallResult(call.id, payload, call.action)
        if payload is None:
            code = "NotSupported" if call.action in actions(self.version) else "NotImplemented"
            answer = CallError(call.id, code, "")
        self.put(self._endpoint.send(answer, now_ms))
