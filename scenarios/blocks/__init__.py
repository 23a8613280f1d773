"""The blocks packs are made of: for each the rule as it stands in a pack, and the operator that runs it."""

from __future__ import annotations

from scenarios.blocks.alarm import RuleContext
from scenarios.blocks.camera_state import CameraStateOperator, CameraStateRule
from scenarios.blocks.difference import DifferenceOperator, DifferenceRule
from scenarios.blocks.escalate_near import EscalateNearOperator, EscalateNearRule
from scenarios.blocks.frozen import FrozenOperator, FrozenRule
from scenarios.blocks.no_data import NoDataOperator, NoDataRule
from scenarios.blocks.operator import Operator, Site
from scenarios.blocks.out_of_range import OutOfRangeOperator, OutOfRangeRule
from scenarios.blocks.params import Rule
from scenarios.blocks.rate import RateOperator, RateRule
from scenarios.blocks.static_in_zone import StaticInZoneOperator, StaticInZoneRule
from scenarios.blocks.threshold import ThresholdOperator, ThresholdRule
from scenarios.blocks.window import WindowOperator, WindowRule

AnyRule = (
    ThresholdRule
    | WindowRule
    | RateRule
    | DifferenceRule
    | OutOfRangeRule
    | FrozenRule
    | NoDataRule
    | StaticInZoneRule
    | CameraStateRule
    | EscalateNearRule
)

#: Rules about the data of every device of a pack (role "*"). A device bound in two packs is judged once.
QUALITY_RULES = (OutOfRangeRule, FrozenRule, NoDataRule)


def build(rule: Rule, context: RuleContext, site: Site) -> Operator:
    """The running half of a rule. Raises ValueError if its parameters contradict each other."""
    match rule:
        case ThresholdRule():
            return ThresholdOperator(rule, context, site)
        case WindowRule():
            return WindowOperator(rule, context, site)
        case RateRule():
            return RateOperator(rule, context, site)
        case DifferenceRule():
            return DifferenceOperator(rule, context, site)
        case OutOfRangeRule():
            return OutOfRangeOperator(rule, context, site)
        case FrozenRule():
            return FrozenOperator(rule, context, site)
        case NoDataRule():
            return NoDataOperator(rule, context, site)
        case StaticInZoneRule():
            return StaticInZoneOperator(rule, context, site)
        case CameraStateRule():
            return CameraStateOperator(rule, context, site)
        case EscalateNearRule():
            return EscalateNearOperator(rule, context, site)
        case _:
            raise ValueError(f"no block for {type(rule).__name__}")
