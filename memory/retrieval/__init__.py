"""Retrieval: full text joined with static embeddings, scanned in this process."""
