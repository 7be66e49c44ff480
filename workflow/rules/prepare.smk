# What a unit's result depends on, measured once; images that cannot be read box by box are copied.
rule prepare:
    output:
        RUN.pattern("prepare"),
    log:
        RUN.log("prepare"),
    benchmark:
        RUN.benchmark("prepare")
    resources:
        mem_mb=RUN.memory_mb("prepare"),
        runtime=RUN.minutes("prepare"),
    params:
        config=RUN.config,
    shell:
        "cellseg job prepare {params.config:q} {wildcards.unit:q} > {log:q} 2>&1"


rule plan:
    input:
        RUN.inputs("plan"),
    output:
        RUN.pattern("plan"),
    log:
        RUN.log("plan"),
    benchmark:
        RUN.benchmark("plan")
    threads: RUN.threads("plan")
    resources:
        mem_mb=RUN.memory_mb("plan"),
        runtime=RUN.minutes("plan"),
        gpu=RUN.gpus,
    params:
        config=RUN.config,
    shell:
        "cellseg job plan {params.config:q} {wildcards.unit:q} --threads {threads} > {log:q} 2>&1"
