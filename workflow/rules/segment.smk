# From pixels to the cells of tiles.
rule predict:
    input:
        RUN.inputs("predict"),
    output:
        RUN.pattern("predict"),
    log:
        RUN.log("predict"),
    benchmark:
        RUN.benchmark("predict")
    threads: RUN.threads("predict")
    resources:
        **RUN.resources("predict"),
    params:
        config=RUN.config,
    shell:
        "cellseg job predict {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule tiles:
    input:
        RUN.inputs("tiles"),
    output:
        RUN.pattern("tiles"),
    log:
        RUN.log("tiles"),
    benchmark:
        RUN.benchmark("tiles")
    resources:
        **RUN.resources("tiles"),
    params:
        config=RUN.config,
    shell:
        "cellseg job tiles {params.config:q} {wildcards.unit:q}"
        " --threads {threads} > {log:q} 2>&1"


rule masks:
    input:
        RUN.inputs("masks"),
    output:
        RUN.pattern("masks"),
    log:
        RUN.log("masks"),
    benchmark:
        RUN.benchmark("masks")
    threads: RUN.threads("masks")
    resources:
        **RUN.resources("masks"),
    params:
        config=RUN.config,
    shell:
        "cellseg job masks {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"
