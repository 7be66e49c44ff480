# What a unit's result depends on, measured once; images that cannot be read box by box are copied.
rule prepare:
    output:
        RUN.pattern("prepare"),
    log:
        RUN.log("prepare"),
    benchmark:
        RUN.benchmark("prepare")
    resources:
        **RUN.resources("prepare"),
    params:
        config=RUN.config,
    shell:
        "cellseg job prepare {params.config:q} {wildcards.unit:q}"
        " --threads {threads} > {log:q} 2>&1"


rule plan:
    input:
        RUN.inputs("plan"),
    output:
        RUN.pattern("plan{number}"),
    log:
        RUN.log("plan{number}"),
    benchmark:
        RUN.benchmark("plan{number}")
    wildcard_constraints:
        number=r"\d*",
    threads: RUN.threads("plan")
    resources:
        **RUN.resources("plan"),
    params:
        config=RUN.config,
    shell:
        "cellseg job plan{wildcards.number} {params.config:q} {wildcards.unit:q}"
        " --threads {threads} > {log:q} 2>&1"
