"""What a value information field means: quantity, base unit and factor.

The table of codes is pyMeterBus's (EN 13757-3, primary VIF and the FD and FB extensions): the part of that library
which measured well. Everything around it is ours, because the library takes telegrams whose records end in the middle
(7 of 12 broken ones), has binary floats for factors, and drops records without data.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from protocols.core.errors import ConfigError

#: The library's names of kinds in words; the words are the normalised ones of libmbus, as in the vectors.
_QUANTITY = {
    "ENERGY_WH": "Energy", "ENERGY_J": "Energy", "VOLUME": "Volume", "MASS": "Mass", "ON_TIME": "On time",
    "OPERATING_TIME": "Operating time", "POWER_W": "Power", "POWER_J_H": "Power", "VOLUME_FLOW": "Volume flow",
    "VOLUME_FLOW_EXT": "Volume flow", "VOLUME_FLOW_EXT_S": "Volume flow", "MASS_FLOW": "Mass flow",
    "FLOW_TEMPERATURE": "Flow temperature", "RETURN_TEMPERATURE": "Return temperature",
    "TEMPERATURE_DIFFERENCE": "Temperature difference", "EXTERNAL_TEMPERATURE": "External temperature",
    "PRESSURE": "Pressure", "DATE": "Time point (date)", "DATE_TIME_GENERAL": "Time point (date & time)",
    "UNITS_FOR_HCA": "H.C.A.", "RES_THIRD_VIFE_TABLE": "Reserved", "AVG_DURATION": "Averaging Duration",
    "ACTUALITY_DURATION": "Actuality Duration", "FABRICATION_NO": "Fabrication No",
    "IDENTIFICATION": "(Enhanced) Identification", "ADDRESS": "Bus Address", "ANY_VIF": "Any VIF",
    "MANUFACTURER_SPEC": "Manufacturer specific", "CURRENCY_CREDIT": "Credit", "CURRENCY_DEBIT": "Debit",
    "ACCESS_NUMBER": "Access Number (transmission count)", "MEDIUM": "Medium", "MANUFACTURER": "Manufacturer",
    "PARAMETER_SET_ID": "Parameter set identification", "MODEL_VERSION": "Model / Version",
    "HARDWARE_VERSION": "Hardware version", "FIRMWARE_VERSION": "Firmware version",
    "SOFTWARE_VERSION": "Software version", "CUSTOMER_LOCATION": "Customer location", "CUSTOMER": "Customer",
    "ACCESS_CODE_USER": "Access Code User", "ACCESS_CODE_OPERATOR": "Access Code Operator",
    "ACCESS_CODE_SYSTEM_OPERATOR": "Access Code System Operator", "ACCESS_CODE_DEVELOPER": "Access Code Developer",
    "PASSWORD": "Password", "ERROR_FLAGS": "Error flags", "ERROR_MASKS": "Error mask", "RESERVED": "Reserved",
    "RESERVED_2": "Reserved", "RESERVED_3": "Reserved", "DIGITAL_OUTPUT": "Digital Output",
    "DIGITAL_INPUT": "Digital Input", "BAUDRATE": "Baudrate", "RESPONSE_DELAY": "Response delay time",
    "RETRY": "Retry", "FIRST_STORAGE_NR": "First storage # for cyclic storage",
    "LAST_STORAGE_NR": "Last storage # for cyclic storage", "SIZE_OF_STORAGE_BLOCK": "Size of storage block",
    "STORAGE_INTERVAL": "Storage interval", "DURATION_SINCE_LAST_READOUT": "Duration since last readout",
    "PERIOD_OF_TARIFF": "Period of tariff", "DIMENSIONLESS": "Dimensionless", "VOLTS": "Voltage",
    "AMPERE": "Current", "RESET_COUNTER": "Reset counter", "CUMULATION_COUNTER": "Cumulation counter",
    "CONTROL_SIGNAL": "Control signal", "DAY_OF_WEEK": "Day of week", "WEEK_NUMBER": "Week number",
    "TIME_POINT_OF_DAY_CHANGE": "Time point of day change",
    "STATE_OF_PARAMETER_ACTIVATION": "State of parameter activation",
    "SPECIAL_SUPPLIER_INFORMATION": "Special supplier information",
    "DURATION_SINCE_LAST_CUMULATION": "Duration since last cumulation",
    "OPERATING_TIME_BATTERY": "Operating time battery",
    "DATEAND_TIME_OF_BATTERY_CHANGE": "Date and time of battery change", "RSSI": "RSSI",
    "RELATIVE_HUMIDITY": "Relative humidity",
}  # fmt: skip
_UNIT = {
    "WH": "Wh", "J": "J", "M3": "m^3", "KG": "kg", "W": "W", "J_H": "J/h", "M3_H": "m^3/h", "M3_MIN": "m^3/min",
    "M3_S": "m^3/s", "KG_H": "kg/h", "C": "°C", "K": "K", "BAR": "bar", "DATE": "-", "DATE_TIME": "-",
    "SECONDS": "s", "V": "V", "A": "A", "HCA": "Units for H.C.A.", "CURRENCY": "Currency units", "BAUD": "Baud",
    "BIT_TIMES": "Bittimes", "PERCENT": "%", "DBM": "dBm", "NONE": "",
}  # fmt: skip
#: Codes the library labels as another quantity, or as none (EN 13757-3, FD and FB extensions).
_CORRECTED = {
    0x208: ("Energy", "J"),
    0x209: ("Energy", "J"),
    0x230: ("Power", "J/h"),
    0x231: ("Power", "J/h"),
    0x131: ("Duration of tariff", "s"),
    0x132: ("Duration of tariff", "s"),
    0x133: ("Duration of tariff", "s"),
    0x130: ("Start (date/time) of tariff", "-"),
    0x170: ("Date and time of battery change", "-"),
}

_DATES = {0x6C: (2,), 0x6D: (3, 4, 6), 0x130: (2, 4), 0x170: (2, 4)}

#: A unit in the one that a city's data are kept in, and how many of those it is.
BASE: dict[str, tuple[str, Decimal]] = {
    "J": ("Wh", Decimal(1) / 3600),
    "J/h": ("W", Decimal(1) / 3600),
    "m^3/min": ("m^3/h", Decimal(60)),
    "m^3/s": ("m^3/h", Decimal(3600)),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """``code``: VIF without extension bit, 100H + VIFE after FD, 200H + VIFE after FB, -1 a text. number * ``factor``
    is in ``unit``."""

    code: int
    quantity: str
    unit: str = ""
    factor: Decimal = Decimal(1)

    @property
    def date_sizes(self) -> tuple[int, ...]:
        """Sizes of data that are a date (type G), a time (J), a date with a time (F, to the second I); else numbers."""
        return _DATES.get(self.code, ())


@cache
def _table() -> dict[int, Any]:
    try:
        from meterbus.core_objects import VIFTable
    except ImportError as exc:
        text = "M-Bus needs the library pyMeterBus: pip install 'citybrain[meters]'"
        raise ConfigError(text) from exc
    return dict(VIFTable.lut)


@cache
def meaning(code: int) -> Meaning:
    """The meaning of a code; unknown ones keep their number. Raises ConfigError where the library is not installed."""
    row = _table().get(code)
    if row is None:
        return Meaning(code, f"Unknown (VIF=0x{code:02X})")
    factor, unit, kind = row
    quantity = kind if isinstance(kind, str) else _QUANTITY.get(kind.name, kind.name)
    text = unit.replace("degF", "°F") if isinstance(unit, str) else _UNIT.get(unit.name, unit.value)
    if code in _CORRECTED:
        quantity, text = _CORRECTED[code]
    if quantity == "Reserved":
        text = quantity
    return Meaning(code, quantity, text, Decimal(str(factor)) if factor else Decimal(1))
