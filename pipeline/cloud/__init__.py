"""The cloud side: a service that reranks lattices, and the client on the device that asks it.

`wire` is what both sides know; `reranker`, `sessions` and `service` are the cloud's, `client` and `local` the device's.
"""
