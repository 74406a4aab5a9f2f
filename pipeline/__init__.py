"""From images to shards of region-text pairs.

    plan -> read -> propose -> caption -> write          one unit of work: annotate.py

    annotate    one unit, the flow in a row; sample: all that flows through it
    settings    what decides the output, how it is cut, how it is run
    registry    proposers and captioners by name, other packages' too; backends, word_list: what they have in common
    html_page   pages that need nothing else, for the sheet and the audit
    plan/       which samples make which unit
    read/       sources, and decoding
    propose/    boxes, and which of them become regions
    caption/    crops, and what is said of them
    write/      rows, records and shards
    retry/      what died in shards that are there, repeated from its source
    overlay/    columns beside the shards, new captions on old boxes, and both as shards of their own
    audit/      what filters would drop of a data set, and a filter list; a data set in numbers, for its card
    export/     data sets in the formats of other tools, one file each
    store/      durable files and the commit
    run/        the driver, the engine, the workers, leases, logs
    cli/        the command line; api: the same for notebooks
    models/     weights, devices, batches, licences; golden/: what models are known to answer
    scenes/     drawn pictures whose truth is known; minis/: small models trained on them
    doctor/     checks a data set; viewer/: shows it

Imports point down this list's flow: `cli` and `run` know the steps, no step knows them.
"""

DISTRIBUTION = "fineclip-regions"
"""Whose package this is: others on the index have its name, and would lie in its place."""
