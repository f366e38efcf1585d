"""Which way to answer a call, in money: every way is worth `quality · point − cost − seconds · second`.

A *point* is what one point of score (from all wrong to all right) is worth, in nano-dollars: the 1/λ of
quality − λ·cost. Nobody has to know it: `pacing` finds it from the share of quality that the user wants kept
(`aim`, `quality`) and from what is left of the run's budget and of its tasks.
"""
