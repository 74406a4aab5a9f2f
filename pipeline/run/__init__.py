"""Running a job: a driver, an engine that schedules, workers that do the units, and what is left when they ended.

job -> engine -> share -> worker -> (annotate) ;  then finalise -> card

job        the driver: plan, repair, run what is left until nothing is, finalise, count
engines    what schedules: beam_engine, with the graph of unit numbers that Beam gets, and ray_engine
share      which unit a worker does next where the engine hashed them
watch      how far all drivers on OUTPUT are, and whether anything moves
worker     what one process does with a unit: lease it, load the models once, retry what passes
lease      who works on a unit now
log        what a run's units came to, in `_run/`; status: totals, from the markers
repair     publishes what was decided, withdraws shards whose files are lost or cut; dead: lists what died
retry      the job of repeating what died in shards that are there, from their sources (pipeline/retry)
recaption  the job of new captions on old boxes; materialize: that of data and overlays as one data set
finalise   the files of the data set as a whole; card: its README
probe      measures a small run, for `plan --probe`
"""
