# From pixels to the cells of tiles.
rule predict:
    input:
        RUN.inputs("predict"),
    output:
        RUN.pattern("predict{number}"),
    log:
        RUN.log("predict{number}"),
    benchmark:
        RUN.benchmark("predict{number}")
    wildcard_constraints:
        number=r"\d*",
    threads: RUN.threads("predict")
    resources:
        **RUN.resources("predict"),
    params:
        config=RUN.config,
    shell:
        "cellseg job predict{wildcards.number} {params.config:q} {wildcards.unit:q}"
        " --batch {wildcards.batch} --threads {threads} > {log:q} 2>&1"


rule tiles:
    input:
        RUN.inputs("tiles"),
    output:
        RUN.pattern("tiles{number}"),
    log:
        RUN.log("tiles{number}"),
    benchmark:
        RUN.benchmark("tiles{number}")
    wildcard_constraints:
        number=r"\d*",
    resources:
        **RUN.resources("tiles"),
    params:
        config=RUN.config,
    shell:
        "cellseg job tiles{wildcards.number} {params.config:q} {wildcards.unit:q}"
        " --threads {threads} > {log:q} 2>&1"


rule masks:
    input:
        RUN.inputs("masks"),
    output:
        RUN.pattern("masks{number}"),
    log:
        RUN.log("masks{number}"),
    benchmark:
        RUN.benchmark("masks{number}")
    wildcard_constraints:
        number=r"\d*",
    threads: RUN.threads("masks")
    resources:
        **RUN.resources("masks"),
    params:
        config=RUN.config,
    shell:
        "cellseg job masks{wildcards.number} {params.config:q} {wildcards.unit:q}"
        " --batch {wildcards.batch} --threads {threads} > {log:q} 2>&1"
