"""Durable files: what is written, is written once and whole.

storage    local folders (local) and object stores (objects, s3) behind one interface
scratch    files in work, named by their writers (process), swept when these are gone
commit     the decision on a shard, and its roll-forward to the final names
"""
