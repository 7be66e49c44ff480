# Relates the nuclei and cells of an image, when both are painted.
rule overlap:
    input:
        RUN.inputs("overlap"),
    output:
        RUN.pattern("overlap"),
    log:
        RUN.log("overlap"),
    benchmark:
        RUN.benchmark("overlap")
    threads: RUN.threads("overlap")
    resources:
        **RUN.resources("overlap"),
    params:
        config=RUN.config,
    shell:
        "cellseg job overlap {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule match:
    input:
        RUN.inputs("match"),
    output:
        RUN.pattern("match"),
    log:
        RUN.log("match"),
    benchmark:
        RUN.benchmark("match")
    resources:
        **RUN.resources("match"),
    params:
        config=RUN.config,
    shell:
        "cellseg job match {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"


rule compartments:
    input:
        RUN.inputs("compartments"),
    output:
        RUN.pattern("compartments"),
    log:
        RUN.log("compartments"),
    benchmark:
        RUN.benchmark("compartments")
    threads: RUN.threads("compartments")
    resources:
        **RUN.resources("compartments"),
    params:
        config=RUN.config,
    shell:
        "cellseg job compartments {params.config:q} {wildcards.unit:q} --batch {wildcards.batch}"
        " --threads {threads} > {log:q} 2>&1"
