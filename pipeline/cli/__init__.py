"""The command line: settings in, tables out.

options, profiles   flags, YAML and profiles become settings
command             one function a subcommand: annotate, plan, status
recaption           new captions on old boxes; materialize: overlays as a data set of their own
hard_negatives      wrong captions to train against, as an overlay
progress, report    what a person sees while a job runs, and when it ends
cost                what a paper-size job costs, in a sentence
"""
