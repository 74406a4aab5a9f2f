"""A run: steps in a loop, with checkpoints, a log and held-out evaluation.

settings, assemble   how a run is carried out, and the parts that its recipe names
step, optim          one step, in pieces if need be (GradCache)
loop                 steps until the end; checkpoints, log, held_out, processes, load: its parts
"""
