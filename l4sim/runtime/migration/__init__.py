"""Migrations: a request, its KV or neither moves from one instance to another.

One machine at the source (`Departures`) and one at the destination (`Landings`) speak a protocol of messages; when a
request leaves its batch is its method's to say.
"""
