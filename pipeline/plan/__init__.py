"""Planning: which samples make which shard, fixed before any work.

listing -> make -> plan ;  check compares a plan with what is asked for now

plan       the plan itself: units, their sources, the fingerprint
make       cuts inputs into units and writes the plan, or extends it
check      refuses a plan that belongs to another configuration or other inputs
listing    what the inputs hold: files, sizes, tags
samples    tells by hashes whether a file whose time has changed holds other bytes
"""
