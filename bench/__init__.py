"""What podvif costs, beside what it cannot cost less than.

Law: no figure stands alone.  Each is measured in turn with its floor, in one run, on one Open vSwitch, at a stated pmd-maxsleep,
and said with its spread; the machine's noise then falls on both, and the ratio is what counts.  It measures and judges, and
is no test: a target that is missed is printed as missed, and only what could not run makes the program fail.
"""
