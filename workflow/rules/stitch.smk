# Numbers the cells of all tiles and paints the labels.
rule link:
    input:
        RUN.inputs("link"),
    output:
        RUN.pattern("link"),
    log:
        RUN.log("link"),
    benchmark:
        RUN.benchmark("link")
    params:
        config=RUN.config,
    resources:
        mem_mb=RUN.memory_mb("link"),
        runtime=RUN.minutes("link"),
    shell:
        "cellseg job link {params.config:q} {wildcards.unit} --batch {wildcards.batch}"
        " > {log:q} 2>&1"


rule number:
    input:
        RUN.inputs("number"),
    output:
        RUN.pattern("number"),
    log:
        RUN.log("number"),
    benchmark:
        RUN.benchmark("number")
    params:
        config=RUN.config,
    resources:
        mem_mb=RUN.memory_mb("number"),
        runtime=RUN.minutes("number"),
    shell:
        "cellseg job number {params.config:q} {wildcards.unit} --batch {wildcards.batch}"
        " > {log:q} 2>&1"


rule paint:
    input:
        RUN.inputs("paint"),
    output:
        RUN.pattern("paint"),
    log:
        RUN.log("paint"),
    benchmark:
        RUN.benchmark("paint")
    params:
        config=RUN.config,
    threads: RUN.threads
    resources:
        mem_mb=RUN.memory_mb("paint"),
        runtime=RUN.minutes("paint"),
    shell:
        "cellseg job paint {params.config:q} {wildcards.unit} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"
