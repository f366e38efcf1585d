"""The doubt of an answer, learned from few labels, and the rule that spends money on it.

model = DoubtModel(default_embedder())
model.fit(graded)                                     # answers whose score is known
found = model.ask([prompt], [answer])                 # P(wrong), gain of a dearer answer
decide(found.gain[0], cost_nano, point_nano).escalate
"""

from .escalation import Escalation, Outlook, decide, outlook
from .model import FEWEST_ROWS, Doubt, DoubtModel, Graded, Reason

__all__ = [
    "FEWEST_ROWS",
    "Doubt",
    "DoubtModel",
    "Escalation",
    "Graded",
    "Outlook",
    "Reason",
    "decide",
    "outlook",
]
