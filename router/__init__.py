"""Which model answers this call: what models are (`types`), what is known of their past calls (`stats`),
how long a prompt is (`tokens`), what hosted models cost (`prices`) and who decides (`policy`).

The router calls no model and opens no database: memory hands it rows, the engine hands it a `Query`, and it
gives back a `Route` that says what it took, what it left and why. `testing` has a policy for tests.
"""
