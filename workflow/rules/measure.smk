# Measures the cells, makes coarser levels, checks all of it and publishes it.
rule measure:
    input:
        RUN.inputs("measure"),
    output:
        RUN.pattern("measure"),
    log:
        RUN.log("measure"),
    benchmark:
        RUN.benchmark("measure")
    threads: RUN.threads("measure")
    resources:
        **RUN.resources("measure"),
    params:
        config=RUN.config,
    shell:
        "cellseg job measure {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule level:
    input:
        RUN.inputs("level"),
    output:
        RUN.pattern("level{number}"),
    log:
        RUN.log("level{number}"),
    benchmark:
        RUN.benchmark("level{number}")
    wildcard_constraints:
        number=r"\d+",
    threads: RUN.threads("level")
    resources:
        **RUN.resources("level"),
    params:
        config=RUN.config,
    shell:
        "cellseg job level{wildcards.number} {params.config:q} {wildcards.unit:q}"
        " --threads {threads} > {log:q} 2>&1"


rule audit:
    input:
        RUN.inputs("audit"),
    output:
        RUN.pattern("audit"),
    log:
        RUN.log("audit"),
    benchmark:
        RUN.benchmark("audit")
    resources:
        **RUN.resources("audit"),
    params:
        config=RUN.config,
    shell:
        "cellseg job audit {params.config:q} {wildcards.unit:q}"
        " --threads {threads} > {log:q} 2>&1"


rule summary:
    input:
        RUN.audits,
    output:
        RUN.marker,
    log:
        RUN.file_of("summary", "log"),
    benchmark:
        RUN.file_of("summary", "tsv")
    localrule: True
    params:
        config=RUN.config,
    shell:
        "cellseg job summary {params.config:q} > {log:q} 2>&1"
