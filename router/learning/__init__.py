"""What is learned of models from outcomes: how good an answer will be, what it will cost and how long it
will take (`predictor`), and which model to try next while outcomes come in (`online`).

Nothing here opens a database or the network: rows come in, and states go out as plain bytes.
"""
