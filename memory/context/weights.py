"""Weights of the evidence for a value (`slots.py`) and for the thread of an ask (`plan.py`).

Conditional logits, fitted on self-made dialogues (`python -m benchmarks.dialogue_weights` prints
these tables);
public data was only measured on. Names are of evidence, never of words or keys.
"""

#: evidence that a step states a value of an argument by a candidate
VALUES: dict[str, float] = {
    "": -1.1, "argument_exact": 5.8, "argument_kind": -1.3, "argument_similar": -0.2,
    "argument_similar_kind": 1.5, "asked": 1.0, "asked_other": -0.6, "by_asker": -0.3, "by_replier": -2.1,
    "cue": 1.4, "cue_other": -0.7, "date_not_any": -1.3, "date_not_name": -1.2, "date_not_number": 1.2,
    "date_not_time": -0.5, "distance": -1.4, "field_exact": 2.6, "field_first": 1.1, "field_said": 1.7,
    "field_said_near": 1.4, "field_similar": -2.4, "field_similar_kind": -0.6, "field_unsaid": -2.6,
    "identifier_for_any": 0.5, "identifier_for_name": -0.3, "in_order": 0.6, "key_around": 2.0,
    "key_before": -0.5, "kind_date": 1.8, "kind_equal": 1.3, "kind_name": -0.3, "kind_number": 1.4,
    "kind_other": -1.4, "kind_time": 2.1, "known": 7.2, "known_field": 7.0, "known_kin": -1.2,
    "known_other": -0.4, "likeness": 0.9, "money_not_any": -0.4, "money_not_date": -0.2,
    "money_not_name": -0.3, "name_for_any": 0.5, "name_not_date": -1.7, "name_not_time": -0.8,
    "number_not_any": 2.4, "number_not_date": -1.1, "number_not_name": -1.4, "number_not_time": -0.5,
    "other_service_argument_kind": 2.0, "other_service_argument_similar": 1.3, "out_of_order": 0.7,
    "result_call": -0.2, "result_other": -0.7, "same_call": 2.1, "same_service": 2.3, "since_call": 0.5,
    "stripped": -0.8, "text_for_any": -0.8, "text_for_name": -3.1, "text_not_date": -1.9,
    "text_not_number": -1.1, "text_not_time": -1.6, "then_no": 1.5, "then_yes": 1.6, "time_not_any": 0.2,
    "time_not_date": 3.4, "time_not_name": -1.2, "time_not_number": 0.9,
}  # fmt: skip

#: evidence that a coming step goes on a thread
ASKS: dict[str, float] = {
    "act_asks": -0.3, "act_asks_number": -1.3, "act_call": -1.1, "act_close": -0.3, "act_done": -0.7,
    "act_failure": 0.6, "act_has_date": -0.4, "act_has_money": -0.2, "act_has_name": -0.2,
    "act_has_number": -0.5, "act_has_time": -0.3, "act_more": -1.3, "act_no": 0.2, "act_result": -1.0,
    "act_short": -0.4, "act_success": 0.2, "act_thanks": -1.1, "act_wh": -0.6, "act_yes": 0.3,
    "act_yesno": -0.5, "fill": 0.6, "fill_least": -0.6, "fill_log": 1.5, "fill_near": 1.9, "fill_none": 1.0,
    "gap": -0.2, "keys_said": 1.8, "length": -0.3, "meaning": -0.6, "meaning_thread": 3.5, "name_near": 1.1,
    "name_said": 2.4, "open": 1.0, "same_call": -4.2, "same_service": -0.3, "tail_asker": 2.5,
    "tail_replier": -1.8, "tail_tool": -1.1,
}  # fmt: skip
