"""Plans for goals that come up often, for when the model at hand is too weak to plan.

One YAML file each: `name`, `description`, `examples` (goals in people's words, by which it is found) and
`workflow` in the workflow format. The goal itself is the input `goal`. See `template_library`.
"""
