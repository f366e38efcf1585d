"""Agents: models that work towards a goal with typed tools, and everything typed that a model says.

The room's main path: `loop.run_agent` asks a `model.Model` for one of the `actions` (a tool call or the
answer), has `loop.Tools` run the call, and shows the result to the model through a bounded `history`, until
there is an answer of an `outputs.OutputType`. `structured.complete_structured` is the same for a single call.
`tools` says what a tool is, `schemas` what its arguments may be, `testing` has fakes for model and tools.

A room knows the models by the `Model` protocol only, and neither pool nor database.
"""
