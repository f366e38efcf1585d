"""How good a router is on rows that it has not seen, and what it would cost.

`outcomes` reads rows, `routers` asks a router about rows that it was not trained on, `scoring` says how
good its choices were beside the zero router, random and the oracle, `frontier` (drawn by `chart` in a
terminal and by `plot` as SVG or PNG) shows cost against quality, `ranking` orders the models, and
`savings` says what a run saved.

Nothing here calls a model, opens a database or learns anything for the product.
"""
