"""Durable files: what is written, is written once and whole.

storage    local folders and object stores behind one interface
commit     the decision on a shard, and its roll-forward to the final names
"""
