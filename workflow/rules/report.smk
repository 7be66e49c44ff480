# Draws the page for people: an end of its own, which nothing waits for.
rule report:
    input:
        RUN.marker,
    output:
        report(RUN.page, category="Report"),
    log:
        RUN.file_of("report", "log"),
    benchmark:
        RUN.file_of("report", "tsv")
    resources:
        **RUN.page_resources,
    shell:
        "cellseg report . > {log:q} 2>&1"
