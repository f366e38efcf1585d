"""Weights of the evidence for a value (`slots.py`) and for the thread of an ask (`plan.py`).

Conditional logits, fitted on self-made dialogues (`python -m benchmarks.dialogue_weights` prints these
tables). The generator, its words and the rules were changed while looking at what failed on the public
development split (docs/memory.md, Figures). Names are of evidence, never of words or keys.
"""

#: evidence that a step states a value of an argument by a candidate
VALUES: dict[str, float] = {
    "": -1.3, "among": -0.2, "argument_exact": 5.3, "argument_kind": -1.4, "argument_similar": -0.9,
    "argument_similar_kind": 2.2, "asked": 1.3, "asked_other": -0.2, "by_asker": -0.3, "by_confirm": 3.5,
    "by_failure": 0.5, "by_found": 0.6, "by_replier": -2.5, "by_success": -0.5, "corrects": 0.4, "cue": 1.8,
    "cue_other": -0.9, "date_not_any": -1.6, "date_not_name": -0.9, "date_not_number": -0.2,
    "date_not_time": -0.3, "distance": -1.2, "field_exact": 2.9, "field_first": 1.3, "field_said": 1.0,
    "field_said_near": -0.4, "field_similar": 1.2, "field_similar_kind": 0.9, "field_unsaid": -2.7,
    "in_order": 0.8, "key_around": 1.4, "key_before": -0.5, "kind_date": 1.4, "kind_equal": 1.2,
    "kind_name": -0.3, "kind_number": 1.0, "kind_other": -1.6, "kind_time": 1.6, "known": 7.2,
    "known_field": 7.0, "known_kin": -1.1, "known_other": -0.8, "likeness": 1.0, "money_not_any": -0.4,
    "name_for_any": 0.7, "name_not_date": -1.5, "name_not_number": -0.3, "name_not_time": -0.4,
    "number_not_any": 2.3, "number_not_date": -0.7, "number_not_name": -1.0, "number_not_time": -0.2,
    "other_service_argument_exact": 1.5, "other_service_argument_kind": 0.9, "out_of_order": 0.5,
    "part": -0.2, "result_call": 5.3, "result_call_identifier": 3.8, "result_identifier": -0.4,
    "result_other": -2.7, "same_call": 1.5, "same_service": 1.7, "since_call": 1.1, "spans": -0.5,
    "stripped": -0.6, "text_for_any": -0.9, "text_for_identifier": -1.2, "text_for_name": -3.0,
    "text_not_date": -1.6, "text_not_number": -1.0, "text_not_time": -1.2, "text_not_url": -0.2,
    "then_no": 0.4, "then_yes": 0.3, "time_not_any": -1.0, "time_not_date": 3.3, "time_not_name": -1.0,
}  # fmt: skip

#: evidence that a coming step goes on a thread
ASKS: dict[str, float] = {
    "act_asks": -0.3, "act_asks_name": -0.3, "act_asks_number": -0.8, "act_call": -1.0, "act_confirm": -0.3,
    "act_done": -0.9, "act_failure": 0.3, "act_has_date": -0.6, "act_has_money": -0.4, "act_has_time": -0.2,
    "act_more": -1.4, "act_no": 0.3, "act_request": 0.2, "act_result": -0.9, "act_short": -0.5,
    "act_thanks": -1.2, "act_wh": -0.8, "act_yes": 0.8, "act_yesno": -0.6, "fill": 2.1, "fill_log": -0.3,
    "fill_near": 1.9, "fill_none": 0.6, "gap": -1.0, "keys_said": 0.9, "length": 0.6, "meaning": 0.7,
    "meaning_thread": 1.2, "name_near": 0.5, "name_said": 0.9, "open": 1.0, "same_call": -0.3,
    "same_service": -0.9, "tail_asker": 2.5, "tail_replier": -1.6, "tail_tool": -1.0,
}  # fmt: skip
