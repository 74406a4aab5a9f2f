"""From images to shards of region-text pairs.

    plan -> read -> propose -> select -> crop -> caption -> write -> commit

    options, command, report   the command line: settings in, tables out
    job, engine, graph         the driver, the Beam runner, the graph of unit numbers
    worker, annotate, unit     what a worker does with one unit of work
    plan, planning, sources/   which samples make which shard
    read, decode, propose/, select, crop, caption/, batches    the steps of the flow
    write, commit, lease, storage                              durable shards, committed once
    status, finalise, card     what is there, and the files of the data set as a whole

In Python: `pipeline.run.job.annotate(inputs, output, configuration=...)` does what `fineclip annotate` does.
"""
