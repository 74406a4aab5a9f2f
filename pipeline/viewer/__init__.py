"""Looking inside: `fineclip view`, a page that shows boxes and captions straight from the shards, and `fineclip sheet`.

    command   the two subcommands
    source    a data set opened so that one bad shard does not hide the others
    selection what a URL's query string selects: SQL conditions, order, page
    table     the rows in DuckDB, read where they lie
    gallery   a page of images or of crops, the counts and histograms beside it
    compare   two runs or overlays, matched by key
    overview  the data set as a whole
    marks     keep / bad / note, saved as a filter list
    edits     captions and labels corrected by hand, saved as an overlay
    pixels    image bytes: what they are, smaller ones, crops
    session   what one viewer has open, and what the page is sent
    safety    token, Host, Origin and headers
    server    the routes, and nothing else
    sheet     one self-contained HTML file
    assets/   the page: plain modules, no build step

Everything but `server` and `command` is plain functions of data, and tested without HTTP.
"""
