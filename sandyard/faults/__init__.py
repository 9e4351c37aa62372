"""Faults on order: what a rule is, which requests it means, and how rules are shared between parts."""

from sandyard.faults.rules import InvalidRule as InvalidRule
from sandyard.faults.rules import Rule as Rule
from sandyard.faults.rules import read_rule as read_rule
from sandyard.faults.table import Facts as Facts
from sandyard.faults.table import FaultTable as FaultTable
